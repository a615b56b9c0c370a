//! The panel of a desktop on a session bus. It records tray icons and notifications, and clicks menu entries.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use zbus::{
    blocking::{Connection, Proxy, connection::Builder},
    interface,
    message::Header,
    zvariant::{OwnedObjectPath, OwnedValue, Value},
};

/// Properties of a menu entry by their dbusmenu names.
type Properties = std::collections::HashMap<String, OwnedValue>;
/// A menu entry: id, properties and children.
type Layout = (i32, Properties, Vec<OwnedValue>);

const ITEM: &str = "org.kde.StatusNotifierItem";
const MENU: &str = "com.canonical.dbusmenu";

/// The tray icons registered and the notifications shown.
#[derive(Debug, Default)]
struct Seen {
    /// Bus name and object path of each tray icon.
    items: Vec<(String, String)>,
    /// Title and body of each notification.
    notifications: Vec<(String, String)>,
}

type Shared = Arc<Mutex<Seen>>;

fn with<T>(seen: &Shared, work: impl FnOnce(&mut Seen) -> T) -> T {
    work(&mut seen.lock().unwrap_or_else(PoisonError::into_inner))
}

struct Watcher(Shared);

#[interface(name = "org.kde.StatusNotifierWatcher")]
impl Watcher {
    /// Items register with their object path or with their bus name.
    fn register_status_notifier_item(&self, service: &str, #[zbus(header)] header: Header<'_>) {
        let sender = header.sender().map(ToString::to_string).unwrap_or_default();
        let path = if service.starts_with('/') { service } else { "/StatusNotifierItem" };
        with(&self.0, |seen| seen.items.push((sender, path.to_owned())));
    }

    fn register_status_notifier_host(&self, _service: &str) {}

    #[zbus(property)]
    fn is_status_notifier_host_registered(&self) -> bool {
        true
    }

    #[zbus(property)]
    fn protocol_version(&self) -> i32 {
        0
    }

    #[zbus(property)]
    fn registered_status_notifier_items(&self) -> Vec<String> {
        with(&self.0, |seen| seen.items.iter().map(|(name, path)| format!("{name}{path}")).collect())
    }
}

struct Notifications(Shared);

#[interface(name = "org.freedesktop.Notifications")]
impl Notifications {
    fn get_capabilities(&self) -> Vec<String> {
        vec!["body".into()]
    }

    fn get_server_information(&self) -> (String, String, String, String) {
        ("panel".into(), "partyline".into(), "1".into(), "1.2".into())
    }

    #[allow(clippy::too_many_arguments, reason = "the specification's")]
    fn notify(
        &self,
        _app: &str,
        _replaces: u32,
        _icon: &str,
        summary: &str,
        body: &str,
        _actions: Vec<String>,
        _hints: std::collections::HashMap<String, OwnedValue>,
        _timeout: i32,
    ) -> u32 {
        with(&self.0, |seen| {
            seen.notifications.push((summary.to_owned(), body.to_owned()));
            u32::try_from(seen.notifications.len()).unwrap_or(u32::MAX)
        })
    }

    fn close_notification(&self, _id: u32) {}
}

/// A panel on a session bus.
#[derive(Debug)]
pub struct Panel {
    connection: Connection,
    seen: Shared,
}

/// An entry of the tray's menu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    id: i32,
    /// The label. Each level of submenus is indented by two spaces.
    pub label: String,
}

impl Panel {
    /// Registers the panel on the bus, where apps that start later find it.
    ///
    /// # Errors
    /// Returns an error if there is no bus, or another panel runs.
    pub fn new(bus: &str) -> Result<Self> {
        let seen = Shared::default();
        let connection = Builder::address(bus)?
            .serve_at("/StatusNotifierWatcher", Watcher(seen.clone()))?
            .serve_at("/org/freedesktop/Notifications", Notifications(seen.clone()))?
            .name("org.kde.StatusNotifierWatcher")?
            .name("org.freedesktop.Notifications")?
            .build()?;
        Ok(Self { connection, seen })
    }

    /// Returns title and body of the notifications shown so far.
    #[must_use]
    pub fn notifications(&self) -> Vec<(String, String)> {
        with(&self.seen, |seen| seen.notifications.clone())
    }

    fn menu(&self) -> Result<Proxy<'static>> {
        let item = with(&self.seen, |seen| seen.items.last().cloned());
        let (name, path) = item.context("no tray icon was registered")?;
        let item = Proxy::new(&self.connection, name.clone(), path, ITEM)?;
        let menu: OwnedObjectPath = item.get_property("Menu")?;
        Ok(Proxy::new(&self.connection, name, menu, MENU)?)
    }

    /// Returns all entries of the tray's menu.
    ///
    /// # Errors
    /// Returns an error if there is no menu.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let wanted: Vec<&str> = vec!["label"];
        let (_, root): (u32, Layout) = self.menu()?.call("GetLayout", &(0, -1, wanted))?;
        let mut entries = Vec::new();
        list(root, 0, &mut entries)?;
        Ok(entries)
    }

    /// Clicks the entry with that label.
    ///
    /// # Errors
    /// Returns an error if there is none.
    pub fn click(&self, label: &str) -> Result<()> {
        let entries = self.entries()?;
        let found = entries.iter().find(|entry| entry.label.trim_start() == label);
        let id = found.with_context(|| format!("no {label:?} in {entries:?}"))?.id;
        let nothing = Value::from(0_i32);
        self.menu()?.call_method("Event", &(id, "clicked", nothing, 0_u32)).map(drop)?;
        Ok(())
    }
}

fn list((id, properties, children): Layout, depth: usize, entries: &mut Vec<Entry>) -> Result<()> {
    if let Some(label) = properties.get("label") {
        let label: String = label.try_clone()?.try_into()?;
        entries.push(Entry { id, label: format!("{:1$}{label}", "", 2 * depth.saturating_sub(1)) });
    }
    ensure!(depth < 8, "a menu without end");
    children.into_iter().try_for_each(|child| list(child.try_into()?, depth + 1, entries))
}
