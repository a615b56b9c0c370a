//! What source files may contain.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

/// What the core must get from its caller instead.
const IMPURE: [&str; 9] = [
    "Instant::now",
    "SystemTime::now",
    "OsRng",
    "thread_rng",
    "getrandom(",
    "thread::spawn",
    "thread::sleep",
    "net::UdpSocket",
    "net::Tcp",
];

/// A Rust file of the workspace.
#[derive(Debug)]
pub struct Source {
    /// Its path from the workspace's root.
    pub path: PathBuf,
    /// All of it.
    pub text: String,
}

impl Source {
    /// Every Rust file under `crates`, `src-tauri` and `tests`.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn all(root: &Path) -> Result<Vec<Self>> {
        let mut sources = Vec::new();
        for folder in ["crates", "src-tauri", "tests"] {
            collect(root, &root.join(folder), &mut sources)?;
        }
        Ok(sources)
    }

    /// Whether the file belongs to the pure core.
    #[must_use]
    pub fn is_core(&self) -> bool {
        self.path.starts_with("crates/core")
    }

    /// Whether the whole file is test code, by its name or folder.
    #[must_use]
    pub fn is_test(&self) -> bool {
        let name = self.path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        let in_tests =
            self.path.iter().any(|part| part == "tests" || part == "benches" || part == "examples");
        in_tests || ["tests", "testing", "fixtures"].contains(&name) || name.ends_with("_tests")
    }

    /// Lines of code that ship: without comments, and without the test module at the end.
    pub fn shipped(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
        lines
            .take_while(|(_, line)| !line.starts_with("#[cfg(test)]") && !line.starts_with("#[cfg(all(test"))
            .filter(|(_, line)| !line.starts_with("//"))
    }

    /// Lines of a core file that read a clock, the system's randomness, a socket or a thread.
    #[must_use]
    pub fn impurities(&self) -> Vec<String> {
        if !self.is_core() || self.is_test() {
            return Vec::new();
        }
        let impure = |line: &str| IMPURE.iter().any(|word| line.contains(word));
        self.places(|line| impure(line))
    }

    /// Lines with unsafe code. Only `io/platform`, which calls systems, may have any.
    #[must_use]
    pub fn unsafe_code(&self) -> Vec<String> {
        if self.path.starts_with("crates/io/platform") {
            return Vec::new();
        }
        let word = ["un", "safe"].concat();
        let keyword = ["{", "fn", "impl", "extern", "trait"].map(|next| format!("{word} {next}"));
        let permission = format!("allow({word}_code)");
        self.places(|line| line.contains(&permission) || keyword.iter().any(|start| line.contains(start)))
    }

    fn places(&self, wrong: impl Fn(&str) -> bool) -> Vec<String> {
        let found = self.shipped().filter(|(_, line)| wrong(line));
        found.map(|(number, line)| format!("{}:{number}: {line}", self.path.display())).collect()
    }
}

fn collect(root: &Path, folder: &Path, sources: &mut Vec<Source>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(root, &path, sources)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            sources.push(Source { path: path.strip_prefix(root)?.to_owned(), text });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    #[test]
    fn a_clock_in_the_core_is_found_and_one_in_its_tests_is_not() {
        let text =
            "// Instant::now in a comment\nlet now = Instant::now();\n#[cfg(test)]\nmod tests { OsRng }";
        assert_eq!(source("crates/core/x/src/lib.rs", text).impurities().len(), 1);
        assert_eq!(source("crates/core/x/src/tests.rs", text).impurities(), Vec::<String>::new());
        assert_eq!(source("crates/io/x/src/lib.rs", text).impurities(), Vec::<String>::new());
    }

    #[test]
    fn unsafe_code_is_found_outside_of_platform() {
        let text = ["let x = un", "safe { y };"].concat();
        assert_eq!(source("crates/app/x/src/lib.rs", &text).unsafe_code().len(), 1);
        assert_eq!(source("crates/io/platform/src/lib.rs", &text).unsafe_code().len(), 0);
    }
}
