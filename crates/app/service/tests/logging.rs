//! What the program writes to standard error, by its flags and its environment.
#![allow(clippy::unwrap_used)]

use std::{path::Path, process::Command};

/// Asks for a service that does not run, and returns what is written to standard error.
fn ask(runtime: &Path, flags: &[&str], filter: Option<&str>) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_partyline-service"));
    command.args(flags).args(["status", "--runtime-dir"]).arg(runtime).env_remove("PARTYLINE_LOG");
    command.envs(filter.map(|filter| ("PARTYLINE_LOG", filter)));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(3), "no service is reached");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn one_flag_logs_the_reasons() {
    let directory = tempfile::tempdir().unwrap();
    assert!(!ask(directory.path(), &[], None).contains("DEBUG"));
    let text = ask(directory.path(), &["-v"], None);
    assert!(text.contains("DEBUG") && text.contains("the service was not reached"), "{text}");
}

#[test]
fn filter_that_cannot_be_read_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let text = ask(directory.path(), &[], Some("a=b=c"));
    assert!(text.contains("Nothing is logged: PARTYLINE_LOG is not a log filter"), "{text}");
}
