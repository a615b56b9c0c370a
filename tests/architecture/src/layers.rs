//! Arrows point down only: `shell -> app -> io -> core`, and inside core `node` joins what does not know each other.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, Node, Package, PackageId};

/// Crates that bring sockets or an event loop; the core and what it stands on must do without.
const IMPURE: [&str; 12] = [
    "async-io",
    "async-std",
    "hyper",
    "interprocess",
    "mio",
    "polling",
    "quinn-udp",
    "smol",
    "socket2",
    "tokio",
    "tokio-tungstenite",
    "tun-rs",
];

/// Where a crate of ours lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// Pure code.
    Core,
    /// Side effects.
    Io,
    /// Programs and their engine.
    App,
    /// The desktop shell.
    Shell,
    /// Tests and tasks.
    Outside,
}

/// The layer and name of a crate, by its folder: `crates/core/wire` is `(Core, "wire")`.
#[must_use]
pub fn place(package: &Package) -> (Layer, &str) {
    let folder = package.manifest_path.parent();
    let name = folder.and_then(|folder| folder.file_name()).unwrap_or_default();
    if name == "src-tauri" {
        return (Layer::Shell, name);
    }
    let layer = match folder.and_then(|folder| folder.parent()).and_then(|parent| parent.file_name()) {
        Some("core") => Layer::Core,
        Some("io") => Layer::Io,
        Some("app") => Layer::App,
        _ => Layer::Outside,
    };
    (layer, name)
}

/// Whether a crate at `from` may depend on one at `to`.
#[must_use]
pub fn may(from: (Layer, &str), to: (Layer, &str)) -> bool {
    let shared = to.0 == Layer::Core && matches!(to.1, "model" | "timing" | "wire");
    match from {
        (Layer::Core, "model" | "timing") => false,
        (Layer::Core, "wire" | "nat") => to.0 == Layer::Core && matches!(to.1, "model" | "timing"),
        (Layer::Core, "node") => {
            shared || to.0 == Layer::Core && matches!(to.1, "party" | "netcheck" | "dht" | "paths" | "tunnel")
        }
        (Layer::Core | Layer::Io, _) => shared,
        (Layer::App, "server") => matches!(to.0, Layer::Core | Layer::Io),
        (Layer::App, "cli") => matches!(to.0, Layer::Core | Layer::Io | Layer::App) && to.1 != "server",
        // The shell shows what an engine says; it brings no network logic of its own.
        (Layer::Shell, _) => {
            to == (Layer::Core, "model")
                || to.0 == Layer::Io && matches!(to.1, "ipc" | "platform" | "telemetry")
                || to.0 == Layer::App && matches!(to.1, "engine" | "service")
        }
        (Layer::App, _) => matches!(to.0, Layer::Core | Layer::Io) || to == (Layer::App, "engine"),
        (Layer::Outside, _) => true,
    }
}

/// Edges between our crates that point the wrong way. Tests may know more than what they test.
#[must_use]
pub fn wrong_arrows(metadata: &Metadata) -> Vec<String> {
    let ours: BTreeMap<_, _> = metadata
        .workspace_packages()
        .into_iter()
        .map(|package| (package.name.to_string(), package))
        .collect();
    let mut wrong = Vec::new();
    for from in ours.values() {
        for dependency in from.dependencies.iter().filter(|edge| edge.kind != DependencyKind::Development) {
            if let Some(to) = ours.get(&dependency.name)
                && !may(place(from), place(to))
            {
                wrong.push(format!("{} -> {}", from.name, to.name));
            }
        }
    }
    wrong
}

/// Chains from a crate of the core to one that brings sockets or an event loop.
#[must_use]
pub fn impure_chains(metadata: &Metadata) -> Vec<String> {
    let nodes: BTreeMap<&PackageId, &Node> =
        metadata.resolve.iter().flat_map(|resolve| &resolve.nodes).map(|node| (&node.id, node)).collect();
    let mut chains = Vec::new();
    for package in metadata.workspace_packages() {
        if place(package).0 == Layer::Core {
            let mut seen = BTreeSet::new();
            search(metadata, &nodes, &package.id, &mut Vec::new(), &mut seen, &mut chains);
        }
    }
    chains
}

fn search<'a>(
    metadata: &'a Metadata,
    nodes: &BTreeMap<&'a PackageId, &'a Node>,
    id: &'a PackageId,
    chain: &mut Vec<&'a str>,
    seen: &mut BTreeSet<&'a PackageId>,
    found: &mut Vec<String>,
) {
    if !seen.insert(id) {
        return;
    }
    let name = metadata[id].name.as_str();
    chain.push(name);
    if IMPURE.contains(&name) {
        found.push(chain.join(" -> "));
    }
    for edge in nodes.get(id).iter().flat_map(|node| &node.deps) {
        if edge.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal) {
            search(metadata, nodes, &edge.pkg, chain, seen, found);
        }
    }
    chain.pop();
}

#[cfg(test)]
mod tests {
    use super::{Layer, may};

    #[test]
    fn arrows_point_down() {
        assert!(may((Layer::Core, "paths"), (Layer::Core, "wire")));
        assert!(may((Layer::Core, "paths"), (Layer::Core, "timing")));
        assert!(may((Layer::Core, "node"), (Layer::Core, "paths")));
        assert!(may((Layer::Core, "node"), (Layer::Core, "dht")));
        assert!(may((Layer::Io, "portmap"), (Layer::Core, "timing")));
        assert!(may((Layer::App, "server"), (Layer::Core, "timing")));
        assert!(!may((Layer::Core, "timing"), (Layer::Core, "model")));
        assert!(may((Layer::App, "service"), (Layer::App, "engine")));
        assert!(may((Layer::App, "cli"), (Layer::App, "service")));
        assert!(may((Layer::Shell, "src-tauri"), (Layer::App, "engine")));
        assert!(!may((Layer::Shell, "src-tauri"), (Layer::Core, "node")));
        assert!(!may((Layer::Shell, "src-tauri"), (Layer::Io, "net")));
        assert!(!may((Layer::App, "cli"), (Layer::Shell, "src-tauri")));
        assert!(!may((Layer::Core, "wire"), (Layer::Core, "party")));
        assert!(!may((Layer::Core, "nat"), (Layer::Core, "wire")));
        assert!(!may((Layer::Core, "paths"), (Layer::Core, "tunnel")));
        assert!(!may((Layer::Core, "dht"), (Layer::Core, "party")));
        assert!(!may((Layer::Core, "node"), (Layer::Core, "relay")));
        assert!(!may((Layer::Io, "net"), (Layer::App, "engine")));
        assert!(!may((Layer::Io, "net"), (Layer::Core, "node")));
        assert!(!may((Layer::App, "server"), (Layer::App, "engine")));
        assert!(!may((Layer::App, "service"), (Layer::App, "cli")));
        assert!(!may((Layer::App, "cli"), (Layer::App, "server")));
    }

    #[test]
    fn crates_that_ship_do_not_stand_on_test_crates() {
        for from in
            [(Layer::Core, "paths"), (Layer::Io, "net"), (Layer::App, "engine"), (Layer::Shell, "src-tauri")]
        {
            assert!(!may(from, (Layer::Outside, "netsim")), "{from:?}");
        }
        assert!(may((Layer::Outside, "sim"), (Layer::Outside, "netsim")));
    }
}
