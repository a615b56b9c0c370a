//! How the page is painted, by what the computer has for it.

use std::fs;

use tauri::WebviewWindow;
use webkit2gtk::{HardwareAccelerationPolicy, SettingsExt as _, WebViewExt as _};

/// Where the kernel shows what can render.
const DEVICES: &str = "/dev/dri";

/// Has the page painted by the processor where there is nothing else. `WebKit` would compose it with a graphics processor
/// that is only played by software, which took ten times as much (`cargo xtask app-test --bench`).
///
/// # Errors
/// When the window is gone.
pub fn suit(window: &WebviewWindow) -> tauri::Result<()> {
    if has_graphics() {
        return Ok(());
    }
    window.with_webview(|webview| {
        if let Some(settings) = webview.inner().settings() {
            settings.set_hardware_acceleration_policy(HardwareAccelerationPolicy::Never);
        }
    })
}

fn has_graphics() -> bool {
    let devices = fs::read_dir(DEVICES).into_iter().flatten().flatten();
    devices.into_iter().any(|device| device.file_name().to_string_lossy().starts_with("renderD"))
}
