//! The demonstration, told quickly.

use std::process::{Command, Stdio};

#[test]
fn the_story_is_told_and_all_that_is_claimed_holds() {
    let output = Command::new(env!("CARGO_BIN_EXE_kuryr-testbed"))
        .args(["demo", "--quick"])
        .stdin(Stdio::null())
        .output()
        .expect("kuryr-testbed can be started");
    let (told, complaints) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}\n{complaints}");
    for line in [
        "a second run found everything by its tags and changed nothing",
        "demo/front",
        "pods reach pods and VMs, both ways",
        "with it only web reaches the database, which itself reaches nobody",
        "nothing was lost and nothing made twice",
        "nothing is missing, stray or different",
        "Where to go next",
    ] {
        assert!(told.contains(line), "{line:?} is not told:\n{told}");
    }
    assert!(!told.contains('✗') && !told.contains('\x1b'), "{told}");
    // A line wider than the terminal is a table that nobody can read.
    let wide: Vec<&str> = told.lines().filter(|line| line.chars().count() > 115).collect();
    assert!(wide.is_empty(), "{wide:#?}");
}
