//! Finding out which system packages are missing, and installing them with the user's consent.

use std::{
    env, fs,
    io::{IsTerminal, Write, stdin, stdout},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::cargo;

/// A Debian or Ubuntu package, how to detect it, and why it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Package {
    name: &'static str,
    detect: Detect,
    why: &'static str,
}

/// How to detect a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detect {
    /// A program in the path.
    Program(&'static str),
    /// A library, by its pkg-config name.
    Library(&'static str),
    /// A module of Python.
    Module(&'static str),
}

const fn package(name: &'static str, program: &'static str, why: &'static str) -> Package {
    Package { name, detect: Detect::Program(program), why }
}

const fn library(name: &'static str, library: &'static str, why: &'static str) -> Package {
    Package { name, detect: Detect::Library(library), why }
}

const fn module(name: &'static str, module: &'static str, why: &'static str) -> Package {
    Package { name, detect: Detect::Module(module), why }
}

const COMPILER: Package = package("gcc", "cc", "compiles the C parts of cryptography");

const IP: Package = package("iproute2", "ip", "network namespaces");

const COTURN: Package = package("coturn", "turnserver", "relay to compare ours with");

const CONVERT: Package = package("imagemagick", "convert", "makes pictures small");

/// Packages needed to build and run.
pub const FOR_RUN: [Package; 1] = [COMPILER];

/// Packages needed to build the desktop app.
pub const FOR_APP: [Package; 9] = [
    COMPILER,
    package("pkg-config", "pkg-config", "finds libraries"),
    library("libwebkit2gtk-4.1-dev", "webkit2gtk-4.1", "shows the app's window"),
    library("libgtk-3-dev", "gtk+-3.0", "its frame and menus"),
    library("libayatana-appindicator3-dev", "ayatana-appindicator3-0.1", "its tray"),
    library("librsvg2-dev", "librsvg-2.0", "its icons"),
    library("libdbus-1-dev", "dbus-1", "its notifications"),
    package("nodejs", "node", "builds the user interface"),
    package("npm", "npm", "fetches what it is built with"),
];

/// Packages needed to draw the icons.
pub const FOR_ICONS: [Package; 1] = [package("librsvg2-bin", "rsvg-convert", "draws the icons")];

/// Further packages for the tests of the user interface.
pub const FOR_UI_TESTS: [Package; 1] =
    [package("chromium", "chromium", "shows the user interface by itself")];

/// Further packages for the screenshots.
pub const FOR_SCREENSHOTS: [Package; 1] = [CONVERT];

/// Further packages for the stories of the desktop app.
pub const FOR_APP_TESTS: [Package; 9] = [
    IP,
    COTURN,
    package("nftables", "nft", "NAT and firewalls in the lab"),
    package("xvfb", "Xvfb", "a virtual display"),
    package("openbox", "openbox", "manages its windows"),
    package("dbus-daemon", "dbus-daemon", "a session bus of its own"),
    package("xdotool", "xdotool", "closes windows as people do"),
    package("webkit2gtk-driver", "WebKitWebDriver", "drives the app's window"),
    CONVERT,
];

/// Further packages for unit tests.
pub const FOR_UNIT_TESTS: [Package; 1] = [IP];

/// Packages for the labs, interoperability tests and fuzzing.
pub const FOR_TESTS: [Package; 13] = [
    COMPILER,
    package("g++", "c++", "compiles the fuzzer"),
    IP,
    package("nftables", "nft", "NAT and firewalls in the lab"),
    package("iputils-ping", "ping", "pings through the tunnel"),
    package("procps", "ps", "looks at processes"),
    COTURN,
    package("stun-client", "stun", "asks our STUN server"),
    package("miniupnpd-nftables", "miniupnpd", "router that opens ports on request"),
    package("tayga", "tayga", "NAT64 of networks without IPv4"),
    package("wireguard-go", "wireguard-go", "tunnel to talk to ours"),
    package("wireguard-tools", "wg", "configures it"),
    module("python3-venv", "ensurepip", "runs the DHT nodes of libtorrent"),
];

/// Packages needed to make packages.
pub const FOR_PACKAGES: [Package; 4] = [
    COMPILER,
    package("dpkg-dev", "dpkg-shlibdeps", "finds out what a deb depends on"),
    package("rpm", "rpmbuild", "makes rpms"),
    package("git", "git", "dates the sources"),
];

/// What testing packages needs besides.
pub const FOR_PACKAGE_TEST: [Package; 5] = [
    package("debootstrap", "debootstrap", "a Debian to install packages in"),
    package("lintian", "lintian", "looks through debs"),
    package("systemd", "systemd-analyze", "judges the service's rights"),
    IP,
    package("jq", "jq", "reads what programs say"),
];

/// Returns the packages of `wanted` that are not installed, each once.
pub fn missing(wanted: &[Package]) -> Vec<Package> {
    let mut missing: Vec<Package> = Vec::new();
    for package in wanted {
        if missing.iter().all(|known| known.name != package.name) && !package.is_installed() {
            missing.push(*package);
        }
    }
    missing
}

/// Returns the names of packages, for messages.
pub fn names(packages: &[Package]) -> String {
    packages.iter().map(|package| package.name).collect::<Vec<_>>().join(" ")
}

/// Installs the packages of `wanted` that are missing, after asking unless `yes` is set.
///
/// # Errors
/// The user declined, or apt failed.
pub fn install(wanted: &[Package], yes: bool) -> Result<()> {
    let missing = missing(wanted);
    if missing.is_empty() {
        return Ok(());
    }
    println!("Missing on this system:");
    missing.iter().for_each(|package| println!("  {:16} {}", package.name, package.why));
    if !is_installed("apt-get") {
        bail!("this system has no apt; install by hand what is listed above");
    }
    if !yes && !agreed(&format!("Install with apt: {}?", names(&missing)))? {
        bail!("not installed; `--yes` installs without asking");
    }
    let _quiet = NoServices::begin()?;
    // A list that cannot be fetched may still be there from before.
    if let Err(error) = apt(&["update", "-q"], &[]) {
        eprintln!("{error:#}");
    }
    apt(&["install", "-qy", "--no-install-recommends"], &missing)
}

impl Package {
    fn is_installed(&self) -> bool {
        match self.detect {
            Detect::Program(program) => is_installed(program),
            Detect::Library(name) => cargo::succeeds(Command::new("pkg-config").args(["--exists", name])),
            Detect::Module(name) => {
                cargo::succeeds(Command::new("python3").args(["-c", &format!("import {name}")]))
            }
        }
    }
}

fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(Into::into);
    env::split_paths(&path).chain(system).any(|directory| directory.join(program).exists())
}

fn agreed(question: &str) -> Result<bool> {
    if !stdin().is_terminal() {
        return Ok(false);
    }
    print!("{question} [Y/n] ");
    stdout().flush()?;
    let mut answer = String::new();
    stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes"))
}

fn apt(arguments: &[&str], packages: &[Package]) -> Result<()> {
    let mut command = as_root("apt-get");
    command.args(["-o", "DPkg::Lock::Timeout=300"]).args(arguments);
    command.args(packages.iter().map(|package| package.name)).env("DEBIAN_FRONTEND", "noninteractive");
    cargo::run(&mut command)
}

/// Returns a command that runs as root, by sudo if needed.
pub fn as_root(program: &str) -> Command {
    if cargo::is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    command
}

/// Keeps apt from starting services until dropped: coturn would take the ports that tests use.
struct NoServices;

impl NoServices {
    const POLICY: &str = "/usr/sbin/policy-rc.d";

    /// Does nothing where the system has a policy of its own, or where we are not root and cannot set one.
    fn begin() -> Result<Option<Self>> {
        if Path::new(Self::POLICY).exists() || !cargo::is_root() {
            return Ok(None);
        }
        fs::write(Self::POLICY, "#!/bin/sh\nexit 101\n").context("forbid apt to start services")?;
        let guard = Self;
        cargo::output(Command::new("chmod").args(["755", Self::POLICY]))?;
        Ok(Some(guard))
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(Self::POLICY) {
            eprintln!("remove {} by hand: {error}", Self::POLICY);
        }
    }
}
