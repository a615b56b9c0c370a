//! The report for troubleshooting.

use std::fmt::Write as _;

use partyline_model::{Command, Reply};

use crate::engine::Engine;

/// Returns versions, where the engine runs, its findings and its state as text.
pub async fn text(engine: &Engine) -> String {
    let mut text = format!(
        "Partyline {} on {} ({})\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH
    );
    let backing = engine.backing();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "engine: {:?}", backing.kind);
    if let Some(problem) = backing.problem {
        let _ = writeln!(text, "problem: {} {}", problem.message, problem.hint);
    }
    match engine.request(Command::Doctor).await {
        Ok(Reply::Doctor(findings)) => {
            findings.iter().for_each(|finding| {
                let _ = writeln!(text, "{:?} {}: {}", finding.verdict, finding.what, finding.note);
            });
        }
        Ok(_) => {}
        Err(error) => {
            let _ = writeln!(text, "no check-up: {}", error.message);
        }
    }
    if let Some(snapshot) = engine.snapshot() {
        let shown = serde_json::to_string_pretty(&*snapshot).unwrap_or_default();
        let _ = writeln!(text, "{shown}");
    }
    text
}
