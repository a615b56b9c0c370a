//! Log files that are bounded in size, number and age.
//!
//! Lines are appended to `<name>.log`. When that is full it is renamed to `<name>.1.log`, the former one to `<name>.2.log`
//! and so on, and the last one is deleted. Files older than the limit are deleted when the program starts and at every
//! rotation.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

/// The bounds of a set of log files.
#[derive(Debug, Clone, Copy)]
pub struct Rotation {
    /// Maximum size of a file in bytes.
    pub size: u64,
    /// Number of files kept besides the one written to.
    pub kept: u32,
    /// Age at which a kept file is deleted.
    pub age: Duration,
}

impl Default for Rotation {
    /// Four files of 4 MiB, two weeks.
    fn default() -> Self {
        Self { size: 4 << 20, kept: 3, age: Duration::from_secs(14 * 86_400) }
    }
}

/// A writer into a set of log files.
#[derive(Debug)]
pub struct RollingFile {
    directory: PathBuf,
    name: String,
    rotation: Rotation,
    file: File,
    written: u64,
}

impl RollingFile {
    /// Opens the set and appends to the file of the last run.
    ///
    /// # Errors
    /// The directory or the file cannot be created.
    pub fn open(directory: &Path, name: &str, rotation: Rotation) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let file = append_to(&directory.join(format!("{name}.log")))?;
        let written = file.metadata()?.len();
        let rolling =
            Self { directory: directory.to_owned(), name: name.to_owned(), rotation, file, written };
        rolling.remove_old();
        Ok(rolling)
    }

    fn path(&self, number: u32) -> PathBuf {
        self.directory.join(match number {
            0 => format!("{}.log", self.name),
            number => format!("{}.{number}.log", self.name),
        })
    }

    fn rotate(&mut self) -> io::Result<()> {
        let _ = fs::remove_file(self.path(self.rotation.kept));
        for number in (0..self.rotation.kept).rev() {
            let _ = fs::rename(self.path(number), self.path(number + 1));
        }
        self.remove_old();
        self.file = append_to(&self.path(0))?;
        self.written = self.file.metadata()?.len();
        Ok(())
    }

    fn remove_old(&self) {
        let too_old = |path: &Path| {
            let age =
                fs::metadata(path).and_then(|file| file.modified()).ok().and_then(|at| at.elapsed().ok());
            age.is_some_and(|age| age > self.rotation.age)
        };
        for path in (1..=self.rotation.kept).map(|number| self.path(number)).filter(|path| too_old(path)) {
            let _ = fs::remove_file(path);
        }
    }
}

impl Write for RollingFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.written > 0 && self.written + line.len() as u64 > self.rotation.size {
            self.rotate()?;
        }
        let count = self.file.write(line)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Logs contain members' names and addresses, so only the service's user and its group may read them.
fn append_to(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn full_files_are_renamed_and_the_last_one_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let rotation = Rotation { size: 10, kept: 2, ..Rotation::default() };
        let mut log = RollingFile::open(directory.path(), "service", rotation).unwrap();
        for line in ["first\n", "second\n", "third\n", "fourth\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(names(directory.path()), ["service.1.log", "service.2.log", "service.log"]);
        assert_eq!(fs::read(directory.path().join("service.log")).unwrap(), b"fourth\n");
        assert_eq!(fs::read(directory.path().join("service.2.log")).unwrap(), b"second\n");
    }

    #[test]
    fn next_run_appends_to_the_same_file() {
        let directory = tempfile::tempdir().unwrap();
        for line in ["one\n", "two\n"] {
            let mut log = RollingFile::open(directory.path(), "service", Rotation::default()).unwrap();
            log.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(fs::read(directory.path().join("service.log")).unwrap(), b"one\ntwo\n");
    }

    #[test]
    fn old_files_are_deleted_when_the_program_starts() {
        let directory = tempfile::tempdir().unwrap();
        let old = directory.path().join("service.1.log");
        File::create(&old).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        RollingFile::open(directory.path(), "service", Rotation::default()).unwrap();
        assert_eq!(names(directory.path()), ["service.log"]);
    }
}
