//! Checks for a display.

/// The exit code without a display.
pub const NO_DISPLAY: u8 = 8;

/// Connects to the display, so that its absence is an error here and not a crash later.
///
/// # Errors
/// A message for the user.
#[cfg(target_os = "linux")]
pub fn open() -> Result<(), &'static str> {
    gtk::init().map_err(|_| {
        "Partyline found no display to open its window on.\n  \
         Start it from your desktop. In a terminal without one, use `partyline` instead."
    })
}

/// Succeeds: other systems start graphical programs only with a display.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub const fn open() -> Result<(), &'static str> {
    Ok(())
}
