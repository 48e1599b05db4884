//! NetworkPolicies, from the object to who may reach whom.
//!
//! ```text
//!   random bytes ──worlds──▶ objects ──Policy::read, compile──▶ security groups ──neutron──▶ who reaches whom ─┐
//!                               └──────────────────── spec ───────────────────────────────▶ who may ──────────┴─ the same?
//! ```
//!
//! `spec` says what Kubernetes wants and `neutron` what security groups do; neither shares code with the compiler.

#[cfg(test)]
mod cases;
#[cfg(test)]
mod compare;
#[cfg(test)]
mod enforce;
#[cfg(test)]
mod executor;
#[cfg(test)]
mod guard;
#[cfg(test)]
mod incremental;
#[cfg(test)]
mod neutron;
#[cfg(test)]
mod passes;
#[cfg(test)]
mod random;
#[cfg(test)]
mod reach;
#[cfg(test)]
mod rows;
#[cfg(test)]
mod spec;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod worlds;
