//! The surface in TypeScript: ui/src/bindings.ts.

use tauri_specta::{Builder, collect_commands, collect_events};

use crate::{
    commands,
    surface::{BackingChanged, LinkArrived, Navigate, SnapshotChanged},
};

/// All commands and events that the user interface may use.
pub fn builder() -> Builder<tauri::Wry> {
    Builder::new()
        .commands(collect_commands![
            commands::request,
            commands::snapshot,
            commands::backing,
            commands::start_service,
            commands::take_link,
            commands::find_invite,
            commands::clipboard_link,
            commands::copy_text,
            commands::preferences,
            commands::set_preferences,
            commands::open_external,
            commands::export_settings,
            commands::import_settings,
            commands::diagnostics,
            commands::system_name,
            commands::quit,
        ])
        .events(collect_events![SnapshotChanged, BackingChanged, LinkArrived, Navigate])
        .disable_serde_phases()
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use specta_typescript::Typescript;

    use super::builder;

    /// Set to write the file instead of comparing it.
    const WRITE: &str = "PARTYLINE_WRITE_BINDINGS";

    #[test]
    fn the_user_interface_knows_the_surface_as_it_is() {
        let known = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ui/src/bindings.ts");
        let directory = tempfile::tempdir().unwrap();
        let fresh = directory.path().join("bindings.ts");
        builder().export(Typescript::default(), &fresh).unwrap();
        let fresh = fs::read_to_string(fresh).unwrap();
        if env::var_os(WRITE).is_some() {
            fs::write(&known, &fresh).unwrap();
        }
        let stale = fs::read_to_string(known).unwrap_or_default() != fresh;
        assert!(!stale, "ui/src/bindings.ts is stale: `cargo xtask bindings` writes it anew");
    }
}
