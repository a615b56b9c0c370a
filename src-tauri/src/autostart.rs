//! Starting with the user's session.

use partyline_model::{AppError, ErrorCode};
use tauri::AppHandle;

/// The argument that the session starts the app with.
const ARGUMENT: &str = "--minimised";

/// Adds the app to the session's autostart, or removes it.
///
/// # Errors
/// [`ErrorCode::Storage`] if the entry cannot be changed.
pub fn set(app: &AppHandle, on: bool) -> Result<(), AppError> {
    system::set(app, on).map_err(|error| {
        AppError::new(
            ErrorCode::Storage,
            format!("Starting with the computer could not be changed: {error}."),
            "Change it in your system's settings.",
        )
    })
}

#[cfg(target_os = "linux")]
mod system {
    use std::{error::Error, fs, path::PathBuf};

    use partyline_platform::{remove, replace};
    use tauri::{AppHandle, Manager as _};

    use super::ARGUMENT;

    /// Writes or removes an entry of the XDG autostart specification.
    pub fn set(app: &AppHandle, on: bool) -> Result<(), Box<dyn Error>> {
        let directory = app.path().config_dir()?.join("autostart");
        let entry = directory.join("Partyline.desktop");
        if !on {
            return Ok(remove(&entry)?);
        }
        fs::create_dir_all(&directory)?;
        let program = match app.env().appimage {
            Some(image) => PathBuf::from(image),
            None => std::env::current_exe()?,
        };
        let program = program.to_str().ok_or("the program's path is no text")?;
        Ok(replace(&entry, entry_for(program).as_bytes())?)
    }

    fn entry_for(program: &str) -> String {
        format!("[Desktop Entry]\nType=Application\nName=Partyline\nExec={} {ARGUMENT}\n", quoted(program))
    }

    /// Quotes an argument for `Exec` and escapes it as a value (Desktop Entry Specification).
    fn quoted(argument: &str) -> String {
        let escaped: String = argument
            .chars()
            .map(|letter| match letter {
                '"' | '`' | '$' => format!(r"\\{letter}"),
                '\\' => r"\\\\".to_owned(),
                '%' => "%%".to_owned(),
                other => other.to_string(),
            })
            .collect();
        format!("\"{escaped}\"")
    }

    #[cfg(test)]
    mod tests {
        use std::os::unix::fs::PermissionsExt as _;

        use gtk::{
            gio::{DesktopAppInfo, prelude::AppInfoExt as _},
            glib::shell_parse_argv,
        };

        use super::*;

        #[test]
        fn entry_starts_the_program_whatever_its_path_is() {
            let home = tempfile::tempdir().unwrap();
            let program = home.path().join(r#"my "games" $HOME `x` \y"#);
            fs::write(&program, "").unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
            let entry = home.path().join("Partyline.desktop");
            fs::write(&entry, entry_for(program.to_str().unwrap())).unwrap();
            let read = DesktopAppInfo::from_filename(&entry).expect("no program is found");
            assert_eq!(read.name(), "Partyline");
            let command = shell_parse_argv(read.commandline().unwrap()).unwrap();
            assert_eq!(command, [program.as_os_str(), ARGUMENT.as_ref()]);
            // GLib looks for the program without undoing `%%`, so this is not checked through it.
            assert_eq!(quoted("100%"), "\"100%%\"");
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use tauri::AppHandle;
    use tauri_plugin_autostart::ManagerExt as _;

    pub fn set(app: &AppHandle, on: bool) -> Result<(), tauri_plugin_autostart::Error> {
        let autostart = app.autolaunch();
        if on { autostart.enable() } else { autostart.disable() }
    }
}

/// Returns the plugin that manages autostart on other systems.
#[cfg(not(target_os = "linux"))]
pub fn plugin() -> tauri::plugin::TauriPlugin<tauri::Wry> {
    tauri_plugin_autostart::Builder::new().app_name("Partyline").arg(ARGUMENT).build()
}
