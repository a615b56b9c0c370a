//! Linux: a systemd unit.
//!
//! It is the unit that packages bring, with another command line.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use partyline_model::{AppError, ErrorCode};

use super::program::{COPY, Program, remove_copy};
use crate::InstallOptions;

pub(super) const UNIT: &str = "partyline.service";

/// The unit of the packages, which gives the service its three directories and no right beyond making network devices and
/// opening sockets.
const TEMPLATE: &str = include_str!("../../../../../installers/linux/partyline.service");

/// What a package's service is started with.
const START: &str = "ExecStart=/usr/bin/partyline-service run\n";

/// There if systemd runs the system, says sd_booted(3).
pub(super) const BOOTED: &str = "/run/systemd/system";

/// The user behind sudo or pkexec.
const CALLERS: [&str; 2] = ["SUDO_UID", "PKEXEC_UID"];

pub fn install(options: &InstallOptions) -> Result<(), AppError> {
    let mut options = options.clone();
    if options.allowed_users.is_empty() {
        options
            .allowed_users
            .extend(CALLERS.iter().filter_map(|name| std::env::var(name).ok()?.parse::<u32>().ok()));
    }
    if !Path::new(BOOTED).exists() {
        return Err(AppError::new(
            ErrorCode::Internal,
            "This system is not run by systemd, which the service is installed with.",
            "Have your system start `partyline service run` as root, or run it yourself.",
        ));
    }
    options.extra_ca = options.extra_ca.as_deref().map(found).transpose()?;
    let program = Program::find()?.protected(options.copy, Path::new(COPY))?;
    Systemd::default().install(&program.words(), &options)?;
    println!("The service runs and starts with the computer. Next: partyline create <name>");
    Ok(())
}

pub fn uninstall() -> Result<(), AppError> {
    Systemd::default().uninstall()?;
    println!("The service is gone. Parties and keys stay in its state directory.");
    Ok(())
}

struct Systemd {
    units: PathBuf,
    /// The program's copy, which only its unit runs.
    copy: PathBuf,
    /// A program and its first arguments.
    systemctl: (String, Vec<String>),
}

impl Default for Systemd {
    fn default() -> Self {
        Self {
            units: "/etc/systemd/system".into(),
            copy: COPY.into(),
            systemctl: ("systemctl".into(), Vec::new()),
        }
    }
}

impl Systemd {
    fn install(&self, program: &[String], options: &InstallOptions) -> Result<(), AppError> {
        let path = self.units.join(UNIT);
        fs::write(&path, unit(program, options)).map_err(|error| cannot_write(&path, &error))?;
        tracing::debug!(path = %path.display(), ?program, "unit written");
        self.control(&["daemon-reload"])?;
        self.control(&["enable", UNIT])?;
        self.control(&["restart", UNIT])
    }

    fn uninstall(&self) -> Result<(), AppError> {
        let path = self.units.join(UNIT);
        if !path.exists() {
            return Err(AppError::new(
                ErrorCode::InvalidInput,
                "`partyline service install` has installed no service here.",
                "If it came with a package, remove the package; `sudo systemctl disable --now partyline` only stops it.",
            ));
        }
        let unit = fs::read_to_string(&path).unwrap_or_default();
        self.control(&["disable", "--now", UNIT])?;
        if unit.contains(&format!("ExecStart={}", quoted(&self.copy.to_string_lossy()))) {
            remove_copy(&self.copy)?;
        }
        fs::remove_file(&path).map_err(|error| cannot_write(&path, &error))?;
        self.control(&["daemon-reload"])
    }

    fn control(&self, arguments: &[&str]) -> Result<(), AppError> {
        let (program, first) = &self.systemctl;
        tracing::debug!(program, ?arguments, "calling systemctl");
        let said = match Command::new(program).args(first).args(arguments).output() {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        Err(AppError::new(
            ErrorCode::Internal,
            format!("`systemctl {}` failed: {said}.", arguments.join(" ")),
            "See `journalctl -u partyline`.",
        ))
    }
}

/// The whole path, since the service starts in another directory.
fn found(path: &Path) -> Result<PathBuf, AppError> {
    path.canonicalize().map_err(|error| {
        AppError::new(
            ErrorCode::InvalidInput,
            format!("Cannot use the certificates {}: {error}.", path.display()),
            "Give a file that root can read, and leave it there.",
        )
    })
}

fn unit(program: &[String], options: &InstallOptions) -> String {
    let mut words = program.to_vec();
    words.extend(options.allowed_users.iter().map(|uid| format!("--allow-user={uid}")));
    words.extend(options.allowed_groups.iter().map(|gid| format!("--allow-group={gid}")));
    words.extend(options.allowed_observers.iter().map(|uid| format!("--allow-observer={uid}")));
    words.extend(options.port.map(|port| format!("--port={port}")));
    words.extend(options.extra_ca.iter().map(|path| format!("--extra-ca={}", path.display())));
    words.extend(options.servers.iter().map(|url| format!("--default-server={url}")));
    let command = words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
    TEMPLATE.replace(START, &format!("ExecStart={command}\n"))
}

/// One word of a command line, with everything that systemd would interpret taken literally.
fn quoted(word: &str) -> String {
    let mut text = String::from('"');
    for letter in word.chars() {
        match letter {
            '"' | '\\' => text.extend(['\\', letter]),
            '%' | '$' => text.extend([letter, letter]),
            letter if letter.is_control() => {}
            letter => text.push(letter),
        }
    }
    text.push('"');
    text
}

fn cannot_write(path: &Path, error: &io::Error) -> AppError {
    let code = match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorCode::PermissionDenied,
        _ => ErrorCode::Storage,
    };
    AppError::new(
        code,
        format!("Cannot write {}: {error}.", path.display()),
        "Run it as root: `sudo partyline service install`.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A systemctl that writes down what it is told.
    fn systemd(directory: &Path, exit: u8) -> Systemd {
        let systemctl = directory.join("systemctl");
        let told = directory.join("told");
        let script = format!("echo \"$@\" >> '{}'\necho broken >&2\nexit {exit}\n", told.display());
        fs::write(&systemctl, script).unwrap();
        Systemd {
            units: directory.to_owned(),
            copy: directory.join("copy"),
            systemctl: ("sh".into(), vec![systemctl.display().to_string()]),
        }
    }

    fn options() -> InstallOptions {
        InstallOptions {
            allowed_users: vec![1000],
            allowed_groups: vec![100],
            allowed_observers: vec![1001],
            servers: vec!["wss://play.example".into()],
            port: Some(51820),
            extra_ca: Some("/etc/ssl/party.pem".into()),
            copy: false,
        }
    }

    #[test]
    fn installing_writes_the_unit_and_starts_it_and_uninstalling_undoes_both() {
        let directory = tempfile::tempdir().unwrap();
        let systemd = systemd(directory.path(), 0);
        systemd.install(&["/opt/50% off/partyline-service".into(), "run".into()], &options()).unwrap();
        let unit = fs::read_to_string(directory.path().join(UNIT)).unwrap();
        let start = r#"ExecStart="/opt/50%% off/partyline-service" "run" "--allow-user=1000" "--allow-group=100" "--allow-observer=1001" "--port=51820" "--extra-ca=/etc/ssl/party.pem" "--default-server=wss://play.example""#;
        assert!(unit.contains(start), "{unit}");
        assert_eq!(unit.matches("ExecStart=").count(), 1, "{unit}");
        systemd.uninstall().unwrap();
        assert!(!directory.path().join(UNIT).exists());
        let told = fs::read_to_string(directory.path().join("told")).unwrap();
        let expected = "daemon-reload\nenable partyline.service\nrestart partyline.service\n\
                        disable --now partyline.service\ndaemon-reload\n";
        assert_eq!(told, expected);
        assert_eq!(systemd.uninstall().unwrap_err().code, ErrorCode::InvalidInput);
    }

    #[test]
    fn uninstalling_removes_the_copy_that_the_unit_ran_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let systemd = systemd(directory.path(), 0);
        let (copy, own) = (directory.path().join("copy"), directory.path().join("own"));
        for (program, is_left) in [(&own, true), (&copy, false)] {
            [&copy, &own].iter().for_each(|path| fs::write(path, "").unwrap());
            systemd.install(&[program.display().to_string(), "run".into()], &options()).unwrap();
            systemd.uninstall().unwrap();
            assert_eq!((copy.exists(), own.exists()), (is_left, true));
        }
    }

    #[test]
    fn what_systemd_says_reaches_the_user() {
        let directory = tempfile::tempdir().unwrap();
        let error = systemd(directory.path(), 1).install(&["p".into()], &options()).unwrap_err();
        assert!(error.message.contains("broken"), "{error:?}");
    }

    #[test]
    fn service_gets_no_right_to_raw_sockets() {
        let unit = unit(&["p".into()], &options());
        assert!(unit.contains("\nCapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_BIND_SERVICE\n"), "{unit}");
        assert!(unit.contains("\nRestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK\n"), "{unit}");
    }

    #[test]
    fn words_cannot_leave_their_quotes() {
        assert_eq!(quoted("a\"\nExecStartPre=$x\\"), r#""a\"ExecStartPre=$$x\\""#);
    }
}
