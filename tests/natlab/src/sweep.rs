//! Removes the namespaces and directories that killed processes left behind.

use std::{fs, path::Path};

use anyhow::Result;

use crate::namespace::Namespace;

/// Prefix of the name of every namespace and directory of a lab. The id of the process that made it follows.
pub const PREFIX: &str = "plab";

/// Removes the namespaces and directories of labs whose process is gone, and returns their names.
///
/// # Errors
/// Returns an error if one of them cannot be removed.
pub fn sweep() -> Result<Vec<String>> {
    let mut gone = Vec::new();
    for name in abandoned(Path::new("/run/netns")) {
        Namespace::existing(name.clone()).remove()?;
        gone.push(name);
    }
    for place in [Path::new("/etc/netns"), &std::env::temp_dir()] {
        for name in abandoned(place) {
            fs::remove_dir_all(place.join(&name))?;
            gone.push(name);
        }
    }
    gone.sort();
    gone.dedup();
    Ok(gone)
}

/// Returns the names in `directory` that belong to labs of processes that are gone.
fn abandoned(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| owner(name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()))
        .collect()
}

fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::owner;

    #[test]
    fn only_lab_names_yield_a_process_id() {
        assert_eq!(owner("plab42-0-inet"), Some(42));
        assert_eq!(owner("plab-0"), None);
        assert_eq!(owner("someone-elses"), None);
    }
}
