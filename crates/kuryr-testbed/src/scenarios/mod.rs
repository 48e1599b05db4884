//! The scenarios: stories that must hold in both worlds, each ending with a clean audit.
