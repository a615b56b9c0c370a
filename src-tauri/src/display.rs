//! Whether there is a display to open a window on.

/// Exit code where there is none.
pub const NO_DISPLAY: u8 = 8;

/// Connects to the display, so that its absence is an answer and no crash later.
///
/// # Errors
/// What happened and what to do, for people.
#[cfg(target_os = "linux")]
pub fn open() -> Result<(), &'static str> {
    gtk::init().map_err(|_| {
        "Partyline found no display to open its window on.\n  \
         Start it from your desktop. In a terminal without one, use `partyline` instead."
    })
}

/// Other systems start programs with windows only where there is a display.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub const fn open() -> Result<(), &'static str> {
    Ok(())
}
