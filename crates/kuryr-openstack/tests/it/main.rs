//! The client against small servers that follow a script.

#[cfg(test)]
mod auth;
#[cfg(test)]
mod calls;
#[cfg(test)]
mod config;
#[cfg(test)]
mod connect;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod floating_ips;
#[cfg(test)]
mod load_balancing;
#[cfg(test)]
mod server;
#[cfg(test)]
mod trunks;
