//! Chooses how the page is rendered.

use std::fs;

use tauri::WebviewWindow;
use webkit2gtk::{HardwareAccelerationPolicy, SettingsExt as _, WebViewExt as _};

/// Where the kernel lists graphics devices.
const DEVICES: &str = "/dev/dri";

/// Switches hardware acceleration off on computers without a graphics device. `WebKit` would compose the page with an
/// emulated device, which takes ten times as long (`cargo xtask app-test --bench`).
///
/// # Errors
/// The window was closed.
pub fn configure(window: &WebviewWindow) -> tauri::Result<()> {
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
