//! Faults on a member's own computer: a full disk, a second service, and power cuts.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::World;
use crate::RouterOptions;

/// Size of the small disk in bytes.
const DISK_BYTES: usize = 256 * 1024;
/// Number of power cuts in a row.
const POWER_CUTS: usize = 8;

/// A small tmpfs that is unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf) -> Result<Self> {
        fs::create_dir_all(&at)?;
        let size = format!("size={DISK_BYTES},mode=700");
        mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), Some(size.as_str()))?;
        Ok(Self(at))
    }

    /// Fills the disk. Removing the returned file frees the space again.
    fn fill(&self) -> Result<PathBuf> {
        let path = self.0.join("fill");
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        while file.write_all(&[0; 4096]).is_ok() {}
        Ok(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(self.0.as_path(), MntFlags::MNT_DETACH);
    }
}

fn state_of(world: &World, name: &str) -> PathBuf {
    world.lab.directory().join(name).join("state")
}

/// A party that cannot be saved is refused, and a saved party survives a full disk and a crash.
pub(super) fn full_disk(world: &World) -> Result<()> {
    let disk = SmallDisk::mount(state_of(world, "anna"))?;
    let mut anna = world.member(world.lab.home("anna", RouterOptions::HOME)?)?;
    let fill = disk.fill()?;
    let refused = format!("{:#}", anna.create(None).err().context("a party was made on a full disk")?);
    ensure!(refused.contains("disk space"), "the refusal does not say what to do: {refused}");
    ensure!(anna.status()?.parties.is_empty(), "the party that could not be saved is there all the same");
    fs::remove_file(fill)?;
    anna.create(None)?;
    let before = anna.address()?;
    disk.fill()?;
    anna.crash()?;
    anna.start()?;
    ensure!(anna.address()? == before, "the address changed from {before}");
    Ok(())
}

/// A second service reports that one runs already, and does not affect the first.
pub(super) fn second_service(world: &World) -> Result<()> {
    let anna = world.member(world.lab.home("anna", RouterOptions::HOME)?)?;
    anna.create(None)?;
    let second = anna.service_once().err().context("a second service runs")?;
    let said = format!("{second:#}");
    ensure!(said.contains("already"), "it does not say that one runs already: {said}");
    ensure!(anna.status()?.parties.len() == 1, "the first service lost its party");
    Ok(())
}

/// A service killed at arbitrary moments comes back with its parties and addresses.
pub(super) fn power_cuts(world: &World) -> Result<()> {
    let mut anna = world.member(world.lab.home("anna", RouterOptions::HOME)?)?;
    anna.create(None)?;
    let before = anna.address()?;
    for cut in 0..POWER_CUTS {
        // The power is cut either while the service saves an invite, or just after it started.
        if cut % 2 == 0 {
            anna.partyline(&["invite"])?;
        }
        anna.crash()?;
        ensure!(is_whole(&state_of(world, "anna").join("state.json"))?, "cut {cut} left half a file");
        anna.start()?;
        ensure!(anna.address()? == before, "cut {cut} changed the address");
    }
    Ok(())
}

fn is_whole(path: &Path) -> Result<bool> {
    Ok(serde_json::from_slice::<serde_json::Value>(&fs::read(path)?).is_ok())
}
