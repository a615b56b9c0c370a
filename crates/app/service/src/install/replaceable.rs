//! Whether another user could replace the program that the service runs with root's rights.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Set on a directory in which everybody may create files, but replace only their own.
const STICKY: u32 = 0o1000;
const GROUP_WRITABLE: u32 = 0o020;
const WRITABLE_BY_ALL: u32 = 0o002;

/// A file or directory through which another user than root could replace a program.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Weakness {
    pub path: PathBuf,
    pub reason: &'static str,
}

/// Returns the first weakness on the real path of a program, from the root down.
///
/// # Errors
/// If the path cannot be examined.
pub(super) fn weakness(program: &Path) -> io::Result<Option<Weakness>> {
    first(program, |path| fs::symlink_metadata(path).map(|found| (found.uid(), found.gid(), found.mode())))
}

fn first(
    program: &Path,
    look: impl Fn(&Path) -> io::Result<(u32, u32, u32)>,
) -> io::Result<Option<Weakness>> {
    let mut parts: Vec<_> = program.ancestors().collect();
    parts.reverse();
    for part in parts {
        if let Some(reason) = reason(look(part)?) {
            return Ok(Some(Weakness { path: part.to_owned(), reason }));
        }
    }
    Ok(None)
}

/// Returns how a file or directory with this owner, group and mode can be changed by others than root. With access control
/// lists the bits of the group are those of the list's mask.
const fn reason((uid, gid, mode): (u32, u32, u32)) -> Option<&'static str> {
    if uid != 0 {
        return Some("does not belong to root");
    }
    if mode & STICKY != 0 {
        return None;
    }
    if mode & WRITABLE_BY_ALL != 0 {
        return Some("can be written by every user");
    }
    if mode & GROUP_WRITABLE != 0 && gid != 0 {
        return Some("can be written by a group");
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn judge(exposed: &str, owner: (u32, u32, u32)) -> Option<Weakness> {
        let look = |path: &Path| Ok(if path == Path::new(exposed) { owner } else { (0, 0, 0o755) });
        first(Path::new("/opt/games/partyline"), look).unwrap()
    }

    #[test]
    fn program_that_another_user_can_replace_is_found_at_any_depth() {
        for part in ["/", "/opt", "/opt/games", "/opt/games/partyline"] {
            for owner in [(1000, 0, 0o755), (0, 0, 0o757), (0, 100, 0o775), (1000, 1000, 0o1755)] {
                assert_eq!(judge(part, owner).unwrap().path, Path::new(part), "{owner:?}");
            }
            for owner in [(0, 0, 0o755), (0, 0, 0o775), (0, 100, 0o755), (0, 0, 0o1777)] {
                assert_eq!(judge(part, owner), None, "{owner:?}");
            }
        }
    }

    #[test]
    fn directory_that_everybody_may_write_to_is_found_in_the_file_system() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().canonicalize().unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(place.join("partyline"), "").unwrap();
        let found = weakness(&place.join("partyline")).unwrap().unwrap();
        assert!(place.starts_with(&found.path), "{found:?}");
    }
}
