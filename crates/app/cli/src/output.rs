//! Where answers go: lines for people, one line of JSON for programs.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
};

use partyline_model::AppError;
use serde::Serialize;

use crate::text::clean;

/// What the colour of a text means. The words say it as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Strong,
    Dim,
    Good,
    Fair,
    Bad,
}

/// Standard output and error, and how they may be used.
#[derive(Debug)]
pub struct Output {
    pub json: bool,
    /// Whether lines can be written over.
    pub terminal: bool,
    colour: bool,
}

impl Output {
    pub fn detect(json: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { json, terminal: terminal && !dumb && !json, colour: terminal && !unwanted && !dumb }
    }

    #[cfg(test)]
    pub const fn plain() -> Self {
        Self { json: false, terminal: false, colour: false }
    }

    pub fn paint(&self, text: &str, tone: Tone) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Strong => "1",
            Tone::Dim => "2",
            Tone::Good => "32",
            Tone::Fair => "33",
            Tone::Bad => "31",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Writes a line for people; nothing in JSON mode.
    pub fn say(&self, line: &str) {
        if !self.json {
            put(line);
        }
    }

    /// Writes the answer: as JSON, or whatever `people` writes.
    pub fn answer<T: Serialize>(&self, value: &T, people: impl FnOnce()) {
        if self.json { self.value(value) } else { people() }
    }

    /// Writes a line of JSON.
    pub fn value<T: Serialize>(&self, value: &T) {
        match serde_json::to_string(value) {
            Ok(json) => put(&json),
            Err(error) => complain(&format!("partyline: cannot write JSON: {error}")),
        }
    }

    /// Asks for input on standard error, so that standard output holds the answer alone.
    pub fn prompt(&self, line: &str) {
        complain(line);
    }

    /// Reports an error: what happened, and what to do.
    pub fn error(&self, error: &AppError) {
        #[derive(Serialize)]
        struct Failed<'a> {
            error: &'a AppError,
        }
        if self.json {
            return self.value(&Failed { error });
        }
        let colour = self.colour && io::stderr().is_terminal();
        let head = if colour { "\x1b[31merror:\x1b[0m" } else { "error:" };
        complain(&format!("{head} {}", clean(&error.message)));
        if !error.hint.is_empty() {
            complain(&format!("  {}", clean(&error.hint)));
        }
    }

    /// Replaces what was shown before, on a terminal.
    pub fn redraw(&self, lines: &[String]) {
        let mut screen = String::from("\x1b[H");
        for line in lines {
            screen.push_str(line);
            screen.push_str("\x1b[K\r\n");
        }
        screen.push_str("\x1b[J");
        write(&screen);
    }

    /// Shows a line that the next one replaces, on a terminal.
    pub fn progress(&self, line: &str) {
        write(&format!("\r{line}\x1b[K"));
    }

    /// Writes text as it is, in JSON mode too.
    pub fn write(&self, text: &[u8]) {
        write_bytes(text);
    }

    /// Ends a line of progress.
    pub fn end_progress(&self) {
        write("\n");
    }

    /// Clears the terminal.
    pub fn clear(&self) {
        write("\x1b[2J");
    }
}

/// Writes a line to standard error, which may be closed as well; `eprintln!` would panic then.
fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn put(line: &str) {
    write(&format!("{line}\n"));
}

fn write(text: &str) {
    write_bytes(text.as_bytes());
}

/// Writes to standard output. The program ends quietly when the reader has gone, as in `partyline status | head -1`.
fn write_bytes(text: &[u8]) {
    let mut out = io::stdout().lock();
    if out.write_all(text).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}
