//! The command line of Kuryr.

fn main() {}
