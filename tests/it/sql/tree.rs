//! The program's sources as syntax: what a name stands for.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use syn::visit::Visit;
use syn::{Fields, ImplItem, Item, ItemFn, ReturnType, Signature, UseTree};

use super::types::Ty;

/// A function with its place.
#[derive(Clone)]
pub struct Function {
    pub file: usize,
    pub sig: Signature,
    pub block: syn::Block,
    /// The type whose `impl` it is in.
    pub of: Option<String>,
}

impl Function {
    pub fn returns(&self) -> Ty {
        match &self.sig.output {
            ReturnType::Default => Ty::Unknown,
            ReturnType::Type(_, kind) => Ty::of(kind, self.of.as_deref()),
        }
    }
}

/// What stands under a name, with the file that declares it.
type Declared<T> = HashMap<String, Vec<(usize, T)>>;

#[derive(Default)]
pub struct Tree {
    /// Paths below `src/`.
    names: Vec<String>,
    pub functions: Vec<Function>,
    consts: Declared<(syn::Expr, Ty)>,
    /// What each file imports: a name and the folder it comes from.
    imports: Vec<Vec<(String, String)>>,
    macros: Declared<String>,
    structs: Declared<Struct>,
}

/// Fields with their types; those of a `#[sqlx(flatten)]` field are its type's.
#[derive(Clone, Default)]
pub struct Struct {
    pub fields: Vec<(String, Ty, bool)>,
}

impl Tree {
    pub fn read(sources: Vec<(String, String)>) -> Self {
        let mut tree = Self::default();
        for (at, (name, text)) in sources.into_iter().enumerate() {
            let file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            tree.names.push(name);
            tree.imports.push(Vec::new());
            Reader { tree: &mut tree, at, of: None }.visit_file(&file);
        }
        tree
    }

    pub fn name(&self, file: usize) -> &str {
        &self.names[file]
    }

    /// What is meant by a name in a file: that file's own, the one that it imports, or the only one.
    fn meant<'t, T>(
        &self,
        all: &'t [(usize, T)],
        file: usize,
        name: &str,
    ) -> Option<(usize, &'t T)> {
        let own = all.iter().find(|(at, _)| *at == file);
        let imported = || {
            let (_, path) = self.imports.get(file)?.iter().find(|(known, _)| known == name)?;
            all.iter().find(|(at, _)| self.names[*at].starts_with(path.as_str()))
        };
        let only = || match all {
            [one] => Some(one),
            _ => None,
        };
        own.or_else(imported).or_else(only).map(|(at, value)| (*at, value))
    }

    /// A constant's file, value and type.
    pub fn constant(&self, file: usize, name: &str) -> Option<(usize, &syn::Expr, &Ty)> {
        let (at, (value, kind)) = self.meant(self.consts.get(name)?, file, name)?;
        Some((at, value, kind))
    }

    pub fn macro_rules(&self, file: usize, name: &str) -> Option<&String> {
        self.meant(self.macros.get(name)?, file, name).map(|(_, rules)| rules)
    }

    pub fn structure(&self, file: usize, name: &str) -> Option<&Struct> {
        self.meant(self.structs.get(name)?, file, name).map(|(_, found)| found)
    }

    /// A free function of the file, or the only one of this name.
    pub fn function(&self, file: usize, name: &str) -> Option<&Function> {
        let mut named = self.functions.iter().filter(|f| f.sig.ident == name);
        let own = self.functions.iter().find(|f| f.sig.ident == name && f.file == file);
        own.or_else(|| named.next().filter(|_| named.next().is_none()))
    }

    pub fn method(&self, of: &str, name: &str) -> Option<&Function> {
        self.functions.iter().find(|f| f.sig.ident == name && f.of.as_deref() == Some(of))
    }
}

struct Reader<'a> {
    tree: &'a mut Tree,
    at: usize,
    of: Option<String>,
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let at = self.at;
        match item {
            Item::Const(item) => {
                let kind = Ty::of(&item.ty, None);
                let entry = self.tree.consts.entry(item.ident.to_string()).or_default();
                entry.push((at, ((*item.expr).clone(), kind)));
            }
            Item::Macro(item) => {
                if let Some(name) = &item.ident {
                    let entry = self.tree.macros.entry(name.to_string()).or_default();
                    entry.push((at, item.mac.tokens.to_string()));
                }
            }
            Item::Struct(item) => {
                let mut fields = Vec::new();
                if let Fields::Named(named) = &item.fields {
                    for field in &named.named {
                        let flat = field.attrs.iter().any(|a| {
                            a.path().is_ident("sqlx")
                                && matches!(&a.meta, syn::Meta::List(list)
                                    if list.tokens.to_string().contains("flatten"))
                        });
                        let name = field.ident.as_ref().unwrap().to_string();
                        fields.push((name, Ty::of(&field.ty, None), flat));
                    }
                } else {
                    for (place, field) in item.fields.iter().enumerate() {
                        fields.push((place.to_string(), Ty::of(&field.ty, None), false));
                    }
                }
                let entry = self.tree.structs.entry(item.ident.to_string()).or_default();
                entry.push((at, Struct { fields }));
            }
            Item::Use(item) => imports(&item.tree, "", &mut self.tree.imports[at]),
            _ => {}
        }
        syn::visit::visit_item(self, item);
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        let (sig, block) = (item.sig.clone(), (*item.block).clone());
        self.tree.functions.push(Function { file: self.at, sig, block, of: None });
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let before = self.of.take();
        if let Ty::Named(name) = Ty::of(&item.self_ty, None) {
            self.of = Some(name);
        }
        for inner in &item.items {
            match inner {
                ImplItem::Fn(f) => self.tree.functions.push(Function {
                    file: self.at,
                    sig: f.sig.clone(),
                    block: f.block.clone(),
                    of: self.of.clone(),
                }),
                ImplItem::Const(c) => {
                    let kind = Ty::of(&c.ty, None);
                    let entry = self.tree.consts.entry(c.ident.to_string()).or_default();
                    entry.push((self.at, (c.expr.clone(), kind)));
                }
                _ => {}
            }
        }
        syn::visit::visit_item_impl(self, item);
        self.of = before;
    }
}

/// Names that come from `crate::folder`, with that folder.
fn imports(tree: &UseTree, folder: &str, found: &mut Vec<(String, String)>) {
    match tree {
        UseTree::Path(path) if path.ident == "crate" => imports(&path.tree, "", found),
        UseTree::Path(path) if folder.is_empty() => {
            imports(&path.tree, &path.ident.to_string(), found);
        }
        UseTree::Path(path) => imports(&path.tree, folder, found),
        UseTree::Name(name) => found.push((name.ident.to_string(), folder.to_owned())),
        UseTree::Group(group) => {
            group.items.iter().for_each(|item| imports(item, folder, found));
        }
        UseTree::Rename(_) | UseTree::Glob(_) => {}
    }
}

/// Sources below `src/`, without their unit tests.
pub fn sources() -> Vec<(String, String)> {
    fn walk(root: &Path, folder: &Path, files: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                let text = fs::read_to_string(&path).unwrap();
                let text = text.split("#[cfg(test)]\nmod").next().unwrap().to_owned();
                files.push((name, text));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &root, &mut files);
    files.sort();
    files
}
