//! The controller's writers of trunks against the embedded Neutron, which has faults by rule and a log of its calls.

#[cfg(test)]
mod stories;
#[cfg(test)]
mod world;
