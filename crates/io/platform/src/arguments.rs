//! The command line of this process, which every user of the computer can read while it runs.

/// Removes arguments from the command line that other processes see, for example in `ps`. Until this is called they were
/// visible; where the system does not allow it, they stay.
pub fn hide_arguments<'a>(secrets: impl IntoIterator<Item = &'a str>) {
    let secrets: Vec<&[u8]> =
        secrets.into_iter().filter(|secret| !secret.is_empty()).map(str::as_bytes).collect();
    if secrets.is_empty() {
        return;
    }
    match platform::hide(&|argument| secrets.contains(&argument)) {
        Ok(()) => tracing::debug!("secret arguments hidden from other processes"),
        Err(error) => tracing::debug!(reason = %error, "secret arguments stay visible to other processes"),
    }
}

#[cfg(target_os = "linux")]
mod platform {
    //! The kernel shows the memory in which it placed the arguments, and a process may write to its own.

    use std::{
        fs::{self, OpenOptions},
        io,
        ops::Range,
        os::unix::fs::FileExt as _,
    };

    /// The fields of `/proc/self/stat` between the program's name and `arg_start`, the 48th (proc(5)).
    const FIELDS_BEFORE_ARGUMENTS: usize = 45;

    /// An upper bound for the length of a command line in bytes, so that a wrong field cannot exhaust the memory.
    const MAX_LEN: u64 = 8 << 20;

    pub(super) fn hide(is_secret: &dyn Fn(&[u8]) -> bool) -> io::Result<()> {
        let area = area(&fs::read("/proc/self/stat")?)
            .ok_or_else(|| io::Error::other("the kernel does not say where the arguments are"))?;
        let memory = OpenOptions::new().read(true).write(true).open("/proc/self/mem")?;
        let mut arguments = vec![0; usize::try_from(area.end - area.start).unwrap_or_default()];
        memory.read_exact_at(&mut arguments, area.start)?;
        overwrite(&mut arguments, is_secret);
        memory.write_all_at(&arguments, area.start)
    }

    /// Returns where the arguments are in this process's memory.
    fn area(stat: &[u8]) -> Option<Range<u64>> {
        // The name in parentheses may contain anything, parentheses too.
        let end_of_name = stat.iter().rposition(|byte| *byte == b')')?;
        let fields = std::str::from_utf8(stat.get(end_of_name + 1..)?).ok()?;
        let mut fields = fields.split_ascii_whitespace().skip(FIELDS_BEFORE_ARGUMENTS);
        let (start, end) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let is_plausible = 0 < start && start < end && end - start <= MAX_LEN;
        is_plausible.then_some(start..end)
    }

    /// Replaces secret arguments by a dash and zeros, which are shown as nothing.
    fn overwrite(arguments: &mut [u8], is_secret: &dyn Fn(&[u8]) -> bool) {
        for argument in arguments.split_mut(|byte| *byte == 0) {
            if is_secret(argument) {
                argument.fill(0);
                argument[0] = b'-';
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn arguments_are_found_behind_any_name() {
            let stat = |name: &str, start: u64, end: u64| {
                let before: String = (0..FIELDS_BEFORE_ARGUMENTS).map(|field| format!("{field} ")).collect();
                format!("7 ({name}) {before}{start} {end} 0 0 0\n").into_bytes()
            };
            assert_eq!(area(&stat("party line) 1 (x", 4096, 5000)), Some(4096..5000));
            assert_eq!(area(&stat("x", 0, 0)), None, "not for us to know");
            assert_eq!(area(&stat("x", 4096, u64::MAX)), None);
            assert_eq!(area(b"7 (x) S 1"), None);
            assert_eq!(area(b""), None);
        }

        #[test]
        fn only_secret_arguments_are_overwritten() {
            let mut line = *b"partyline\0join\0secret\0--name\0\0Ben\0";
            overwrite(&mut line, &|argument| argument == b"secret");
            assert_eq!(&line, b"partyline\0join\0-\0\0\0\0\0\0--name\0\0Ben\0");
        }

        #[test]
        fn own_arguments_are_found() {
            let area = area(&fs::read("/proc/self/stat").unwrap()).unwrap();
            let shown = fs::read("/proc/self/cmdline").unwrap();
            assert_eq!(area.end - area.start, shown.len() as u64);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    use std::io;

    pub(super) fn hide(_: &dyn Fn(&[u8]) -> bool) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
