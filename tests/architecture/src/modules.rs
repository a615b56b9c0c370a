//! Modules of one crate must not depend on each other in a circle.
//!
//! Every module is a node; a module that names an item of another one (`use crate::a::Item`, `super::Item`, a path in
//! code) has an edge to the module in which the item is defined. Re-exports are followed and make no edge of their own, so
//! that a parent may declare and re-export its children. Modules for tests do not count.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::{Attribute, Item, UseTree, Visibility, visit::Visit};

/// A module's path from the crate's root, which is empty itself.
type ModulePath = Vec<String>;

/// The modules of one crate, and what each of them names.
#[derive(Debug, Default)]
pub struct Modules {
    modules: BTreeMap<ModulePath, Module>,
}

#[derive(Debug, Default)]
struct Module {
    items: BTreeSet<String>,
    reexports: BTreeMap<String, ModulePath>,
    glob_reexports: Vec<ModulePath>,
    references: BTreeSet<ModulePath>,
}

impl Modules {
    /// Reads a crate from its root file, `src/lib.rs` or `src/main.rs`.
    ///
    /// # Errors
    /// When a file cannot be read or parsed.
    pub fn read(root: &Path) -> Result<Self> {
        let mut modules = Self::default();
        let folder = root.parent().context("a root file lies in a folder")?;
        modules.read_file(root, folder, Vec::new())?;
        Ok(modules)
    }

    /// One shortest circle for every group of modules that depend on each other, as `a -> b -> a`.
    #[must_use]
    pub fn cycles(&self) -> Vec<String> {
        let edges = self.edges();
        let mut reported = BTreeSet::new();
        let mut cycles = Vec::new();
        for module in self.modules.keys() {
            if reported.contains(module) {
                continue;
            }
            if let Some(cycle) = shortest_cycle(module, &edges) {
                let names: Vec<_> = cycle.iter().chain(cycle.first()).map(|path| name(path)).collect();
                cycles.push(names.join(" -> "));
                reported.extend(cycle);
            }
        }
        cycles
    }

    fn read_file(&mut self, file: &Path, folder: &Path, path: ModulePath) -> Result<()> {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let parsed = syn::parse_file(&text).with_context(|| file.display().to_string())?;
        self.read_items(&parsed.items, (file, folder), path)
    }

    /// Reads items of a file. The files of child modules lie in `folder`, those that `#[path]` names beside the file.
    fn read_items(&mut self, items: &[Item], (file, folder): (&Path, &Path), path: ModulePath) -> Result<()> {
        // A module that has one file for each system is read as one.
        let mut module = self.modules.remove(&path).unwrap_or_default();
        let declared = items.iter().filter_map(|item| match item {
            Item::Mod(item) => Some(item.ident.to_string()),
            _ => None,
        });
        let scope = Scope { path: &path, children: declared.collect() };
        for item in items.iter().filter(|item| !is_test(item)) {
            match item {
                Item::Mod(child) => {
                    let child_path = joined(&path, &child.ident.to_string());
                    let child_folder = folder.join(child.ident.to_string());
                    if let Some((_, items)) = &child.content {
                        self.read_items(items, (file, &child_folder), child_path)?;
                        continue;
                    }
                    let explicit = explicit_files(file, &child.attrs);
                    if explicit.is_empty() {
                        let child_file = file_of(folder, &child.ident.to_string());
                        self.read_file(&child_file, &child_folder, child_path.clone())?;
                    }
                    for child_file in explicit {
                        // The children of a file that `#[path]` names lie beside it.
                        self.read_file(
                            &child_file,
                            child_file.parent().unwrap_or(folder),
                            child_path.clone(),
                        )?;
                    }
                }
                Item::Use(item) => module.import(&item.tree, &item.vis, &scope),
                item => {
                    module.items.extend(item_name(item));
                    let mut references = References { scope: &scope, found: &mut module.references };
                    references.visit_item(item);
                }
            }
        }
        self.modules.insert(path, module);
        Ok(())
    }

    fn edges(&self) -> BTreeMap<ModulePath, BTreeSet<ModulePath>> {
        let targets = |from: &ModulePath, module: &Module| {
            let resolved = module.references.iter().map(|path| self.defining_module(path, 0));
            resolved.filter(|to| to != from).collect()
        };
        self.modules.iter().map(|(path, module)| (path.clone(), targets(path, module))).collect()
    }

    /// The module that defines what a path names. `depth` bounds chains of re-exports, which may be circular.
    fn defining_module(&self, path: &[String], depth: usize) -> ModulePath {
        let mut at = ModulePath::new();
        for (index, segment) in path.iter().enumerate() {
            let child = joined(&at, segment);
            if self.modules.contains_key(&child) {
                at = child;
                continue;
            }
            let rest = &path[index + 1..];
            return match self.reexport(&at, segment) {
                Some(target) if depth < 16 => {
                    self.defining_module(&[target.as_slice(), rest].concat(), depth + 1)
                }
                _ => at,
            };
        }
        at
    }

    fn reexport(&self, at: &ModulePath, name: &str) -> Option<ModulePath> {
        let module = self.modules.get(at)?;
        if module.items.contains(name) {
            return None;
        }
        let by_glob = || {
            let holds = |target: &&ModulePath| {
                self.modules
                    .get(*target)
                    .is_some_and(|module| module.items.contains(name) || module.reexports.contains_key(name))
            };
            module.glob_reexports.iter().find(holds).map(|target| joined(target, name))
        };
        module.reexports.get(name).cloned().or_else(by_glob)
    }
}

impl Module {
    fn import(&mut self, tree: &UseTree, visibility: &Visibility, scope: &Scope<'_>) {
        let mut imports = Vec::new();
        flatten(tree, &mut Vec::new(), &mut imports);
        for (path, name) in imports {
            let Some(path) = scope.absolute(&path) else { continue };
            match (visibility, name) {
                (Visibility::Inherited, _) => drop(self.references.insert(path)),
                (_, Some(name)) => drop(self.reexports.insert(name, path)),
                (_, None) => self.glob_reexports.push(path),
            }
        }
    }
}

/// Where a path is written.
struct Scope<'a> {
    path: &'a [String],
    children: BTreeSet<String>,
}

impl Scope<'_> {
    /// A path from the crate's root, if it leads into this crate.
    fn absolute(&self, path: &[String]) -> Option<ModulePath> {
        let supers = path.iter().take_while(|segment| *segment == "super").count();
        let (base, rest): (&[String], &[String]) = match path.first()?.as_str() {
            "crate" => (&[], &path[1..]),
            "self" => (self.path, &path[1..]),
            "super" => (&self.path[..self.path.len().checked_sub(supers)?], &path[supers..]),
            first if self.children.contains(first) => (self.path, path),
            _ => return None,
        };
        Some([base, rest].concat())
    }
}

/// Collects the paths that code of one item names, in macros too.
struct References<'a> {
    scope: &'a Scope<'a>,
    found: &'a mut BTreeSet<ModulePath>,
}

impl References<'_> {
    fn add(&mut self, path: &[String]) {
        if path.len() > 1 {
            self.found.extend(self.scope.absolute(path));
        }
    }

    fn scan(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if path.is_empty() || colons == 2 => {
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => colons += 1,
                other => {
                    self.add(&std::mem::take(&mut path));
                    colons = 0;
                    match other {
                        TokenTree::Group(group) => self.scan(group.stream()),
                        TokenTree::Ident(ident) => path.push(ident.to_string()),
                        _ => {}
                    }
                }
            }
        }
        self.add(&path);
    }
}

impl<'ast> Visit<'ast> for References<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.add(&segments);
        syn::visit::visit_path(self, path);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let mut imports = Vec::new();
        flatten(&item.tree, &mut Vec::new(), &mut imports);
        imports.iter().for_each(|(path, _)| self.add(path));
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.scan(item.tokens.clone());
    }
}

/// Splits a tree of imports into paths, each with the name it gets; globs have none.
fn flatten(tree: &UseTree, prefix: &mut Vec<String>, found: &mut Vec<(ModulePath, Option<String>)>) {
    match tree {
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            flatten(&path.tree, prefix, found);
            prefix.pop();
        }
        UseTree::Name(name) if name.ident == "self" => found.push((prefix.clone(), prefix.last().cloned())),
        UseTree::Name(name) => {
            found.push((joined(prefix, &name.ident.to_string()), Some(name.ident.to_string())));
        }
        UseTree::Rename(name) => {
            found.push((joined(prefix, &name.ident.to_string()), Some(name.rename.to_string())));
        }
        UseTree::Glob(_) => found.push((prefix.clone(), None)),
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, prefix, found)),
    }
}

fn is_test(item: &Item) -> bool {
    let attributes: &[Attribute] = match item {
        Item::Mod(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        _ => &[],
    };
    attributes.iter().any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else { return false };
        list.path.is_ident("cfg") && mentions_test(list.tokens.clone())
    })
}

fn mentions_test(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == "test",
        TokenTree::Group(group) => mentions_test(group.stream()),
        _ => false,
    })
}

fn item_name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        _ => return None,
    };
    Some(ident.to_string())
}

fn file_of(folder: &Path, module: &str) -> PathBuf {
    let plain = folder.join(format!("{module}.rs"));
    if plain.exists() { plain } else { folder.join(module).join("mod.rs") }
}

/// The files that `#[path]` names, or `#[cfg_attr(..., path = ...)]` for each system.
fn explicit_files(file: &Path, attributes: &[Attribute]) -> Vec<PathBuf> {
    let named = attributes.iter().filter_map(|attribute| match &attribute.meta {
        syn::Meta::NameValue(pair) if pair.path.is_ident("path") => Some(pair.value.to_token_stream()),
        syn::Meta::List(list) if list.path.is_ident("cfg_attr") => {
            let mut tokens = list
                .tokens
                .clone()
                .into_iter()
                .skip_while(|token| !matches!(token, TokenTree::Ident(ident) if ident == "path"));
            tokens.nth(2).map(TokenStream::from)
        }
        _ => None,
    });
    let folder = file.parent().unwrap_or(Path::new(""));
    named.filter_map(|tokens| Some(folder.join(syn::parse2::<syn::LitStr>(tokens).ok()?.value()))).collect()
}

fn joined(path: &[String], name: &str) -> ModulePath {
    path.iter().cloned().chain([name.to_owned()]).collect()
}

fn name(path: &[String]) -> String {
    if path.is_empty() { "crate".into() } else { path.join("::") }
}

/// The shortest way from a module back to itself, the module first.
fn shortest_cycle(
    start: &ModulePath,
    edges: &BTreeMap<ModulePath, BTreeSet<ModulePath>>,
) -> Option<Vec<ModulePath>> {
    let mut from: BTreeMap<&ModulePath, &ModulePath> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(module) = queue.pop_front() {
        for next in edges.get(module).into_iter().flatten() {
            if next == start {
                let mut cycle = vec![module.clone()];
                let mut at = module;
                while let Some(previous) = from.get(at) {
                    cycle.push((*previous).clone());
                    at = previous;
                }
                cycle.reverse();
                return Some(cycle);
            }
            if !from.contains_key(next) {
                from.insert(next, module);
                queue.push_back(next);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crate_of(files: &[(&str, &str)]) -> Modules {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Modules::read(&folder.path().join("lib.rs")).unwrap()
    }

    #[test]
    fn modules_that_use_each_other_are_a_cycle() {
        let modules = crate_of(&[
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::b::B; pub struct A(B);"),
            ("b.rs", "pub struct B; fn f(_: crate::c::C) {}"),
            ("c.rs", "pub struct C; fn f() { println!(\"{}\", super::a::NAME) }"),
        ]);
        assert_eq!(modules.cycles(), ["a -> b -> c -> a"]);
    }

    #[test]
    fn a_child_that_uses_its_parent_is_a_cycle_if_the_parent_uses_it() {
        let child = ("a/child.rs", "use super::A; pub fn f(_: A) {}");
        let using = crate_of(&[
            ("lib.rs", "mod a;"),
            ("a.rs", "mod child; pub struct A; fn g() { child::f(A) }"),
            child,
        ]);
        assert_eq!(using.cycles(), ["a -> a::child -> a"]);
        let declaring =
            crate_of(&[("lib.rs", "mod a;"), ("a.rs", "mod child; pub use child::f; pub struct A;"), child]);
        assert_eq!(declaring.cycles(), Vec::<String>::new());
    }

    #[test]
    fn reexports_are_followed_to_where_the_item_is_defined() {
        let modules = crate_of(&[
            ("lib.rs", "mod a; mod b; pub use a::A; pub use b::*;"),
            ("a.rs", "pub struct A(crate::B);"),
            ("b.rs", "pub struct B; fn f(_: crate::A) {}"),
        ]);
        assert_eq!(modules.cycles(), ["a -> b -> a"]);
    }

    #[test]
    fn tests_and_other_crates_do_not_count() {
        let modules = crate_of(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use std::fmt; use crate::b::B; pub struct A(B);"),
            ("b.rs", "pub struct B; #[cfg(test)] mod tests { use crate::a::A; }"),
        ]);
        assert_eq!(modules.cycles(), Vec::<String>::new());
    }
}
