//! Checks whether the desktop shows tray icons.

/// Returns true if a panel shows icons, by StatusNotifierItem or by embedding windows.
#[cfg(target_os = "linux")]
pub fn is_shown() -> bool {
    has_watcher().unwrap_or(false) || has_embedding_panel().unwrap_or(false)
}

#[cfg(target_os = "linux")]
fn has_watcher() -> Option<bool> {
    use gtk::{
        gio::{BusType, Cancellable, DBusCallFlags, bus_get_sync},
        glib::{ToVariant as _, VariantTy},
    };
    /// In milliseconds. The bus itself responds at once.
    const RESPONSE_TIMEOUT: i32 = 1000;
    let bus = bus_get_sync(BusType::Session, None::<&Cancellable>).ok()?;
    let name = ("org.kde.StatusNotifierWatcher",).to_variant();
    let (service, path) = ("org.freedesktop.DBus", "/org/freedesktop/DBus");
    let reply = VariantTy::new("(b)").ok()?;
    let answer = bus.call_sync(
        Some(service),
        path,
        service,
        "NameHasOwner",
        Some(&name),
        Some(reply),
        DBusCallFlags::NO_AUTO_START,
        RESPONSE_TIMEOUT,
        None::<&Cancellable>,
    );
    answer.ok()?.get::<(bool,)>().map(|(owned,)| owned)
}

#[cfg(target_os = "linux")]
fn has_embedding_panel() -> Option<bool> {
    use x11rb::{connection::Connection as _, protocol::xproto::ConnectionExt as _};
    let (connection, screen) = x11rb::connect(None).ok()?;
    let name = format!("_NET_SYSTEM_TRAY_S{screen}");
    let atom = connection.intern_atom(true, name.as_bytes()).ok()?.reply().ok()?.atom;
    let owner = connection.get_selection_owner(atom).ok()?.reply().ok()?.owner;
    connection.flush().ok()?;
    Some(atom != x11rb::NONE && owner != x11rb::NONE)
}

/// Returns true: Windows and macOS always show tray icons.
#[cfg(not(target_os = "linux"))]
pub const fn is_shown() -> bool {
    true
}
