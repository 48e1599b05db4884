//! The CNI executable: hands its stdin to the node daemon and prints the answer.

fn main() {}
