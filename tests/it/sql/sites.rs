//! Where the sources speak to Postgres: each call of `sqlx::query…`, `raw_sql` or
//! `QueryBuilder::new`, with what is bound to it and what its rows are read as.

use syn::visit::Visit;
use syn::{Expr, Local, Stmt};

use super::scope::{Bound, Scope};
use super::tree::{Function, Tree};
use super::types::Ty;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Query,
    As,
    Scalar,
    Raw,
    /// The beginning of a text that is put together at run time.
    Built,
}

/// A call that makes a statement.
pub struct Site {
    /// `file: function`
    pub place: String,
    pub call: Call,
    pub scope: Scope,
    pub text: Expr,
    pub binds: Vec<Expr>,
    /// The fetch method, if rows are read.
    pub fetch: Option<String>,
    /// What a row is read as, where that can be known.
    pub row: Ty,
    /// Columns that are read by their names in the same function, or in what it gives its rows to.
    pub reads: Vec<(String, Ty)>,
}

/// All of a tree, and how many calls there are by their text.
pub fn all(tree: &Tree) -> Vec<Site> {
    let mut sites = Vec::new();
    for function in &tree.functions {
        let mut finder = Finder::of(tree, function);
        finder.run(function);
        sites.append(&mut finder.sites);
    }
    sites
}

/// The calls of a function of a file, in that file: with what each passes.
pub fn calls(tree: &Tree, file: usize, name: &str) -> Vec<(Scope, Vec<Expr>)> {
    let mut found = Vec::new();
    for function in tree.functions.iter().filter(|f| f.file == file) {
        let mut finder = Finder::of(tree, function);
        finder.wanted = Some(name.to_owned());
        finder.run(function);
        found.append(&mut finder.calls);
    }
    found
}

struct Finder<'t> {
    tree: &'t Tree,
    scope: Scope,
    sites: Vec<Site>,
    expected: Ty,
    /// Variables that hold a statement or its rows: which site's.
    kept: Vec<(String, usize)>,
    wanted: Option<String>,
    calls: Vec<(Scope, Vec<Expr>)>,
    depth: usize,
}

impl<'t> Finder<'t> {
    fn of(tree: &'t Tree, function: &Function) -> Self {
        let mut scope = Scope::of_file(function.file);
        scope.of.clone_from(&function.of);
        scope.function = function.sig.ident.to_string();
        scope.enter(&function.sig);
        Self {
            tree,
            scope,
            sites: Vec::new(),
            expected: Ty::Unknown,
            kept: Vec::new(),
            wanted: None,
            calls: Vec::new(),
            depth: 0,
        }
    }

    fn run(&mut self, function: &Function) {
        self.block(&function.block, function.returns());
        let mut reads = Vec::new();
        reads_of(self.tree, function, &mut reads, &mut Vec::new());
        for site in &mut self.sites {
            site.reads.clone_from(&reads);
        }
    }

    /// A block whose value is of a type.
    fn block(&mut self, block: &syn::Block, kind: Ty) {
        let outer = self.scope.names.len();
        let last = block.stmts.len().saturating_sub(1);
        for (at, stmt) in block.stmts.iter().enumerate() {
            match stmt {
                Stmt::Expr(expr, None) if at == last => self.expr(expr, kind.clone()),
                Stmt::Expr(expr, _) => self.expr(expr, Ty::Unknown),
                Stmt::Local(local) => self.local(local),
                // Functions within functions have been listed as such.
                Stmt::Item(_) => {}
                Stmt::Macro(mac) => self.inside(&mac.mac),
            }
        }
        self.scope.names.truncate(outer);
    }

    fn local(&mut self, local: &Local) {
        let Some(init) = &local.init else { return };
        let kind = match &local.pat {
            syn::Pat::Type(typed) => Ty::of(&typed.ty, self.scope.of.as_deref()),
            _ => Ty::Unknown,
        };
        let before = self.sites.len();
        self.expr(&init.expr, kind.clone());
        if let Some((_, otherwise)) = &init.diverge {
            self.expr(otherwise, Ty::Unknown);
        }
        if let (Some(name), true) = (ident(&local.pat), self.sites.len() == before + 1) {
            self.kept.push((name, before));
        }
        let init = (*init.expr).clone();
        self.scope.bind(&local.pat, Bound::Let(init, kind));
    }

    fn expr(&mut self, expr: &Expr, kind: Ty) {
        match expr {
            Expr::Block(e) => self.block(&e.block, kind),
            Expr::Async(e) => self.block(&e.block, Ty::Unknown),
            Expr::Unsafe(e) => self.block(&e.block, kind),
            Expr::Paren(e) => self.expr(&e.expr, kind),
            Expr::If(e) => {
                self.expr(&e.cond, Ty::Unknown);
                self.block(&e.then_branch, kind.clone());
                if let Some((_, other)) = &e.else_branch {
                    self.expr(other, kind);
                }
            }
            Expr::Match(e) => {
                self.expr(&e.expr, Ty::Unknown);
                for arm in &e.arms {
                    self.expr(&arm.body, kind.clone());
                }
            }
            Expr::ForLoop(e) => {
                self.expr(&e.expr, Ty::Unknown);
                let outer = self.scope.names.len();
                self.scope.bind(&e.pat, Bound::Each((*e.expr).clone()));
                self.block(&e.body, Ty::Unknown);
                self.scope.names.truncate(outer);
            }
            Expr::While(e) => {
                self.expr(&e.cond, Ty::Unknown);
                self.block(&e.body, Ty::Unknown);
            }
            Expr::Loop(e) => self.block(&e.body, Ty::Unknown),
            Expr::Return(e) => {
                if let Some(inner) = &e.expr {
                    self.expr(inner, Ty::Unknown);
                }
            }
            Expr::Macro(e) => self.inside(&e.mac),
            Expr::Call(e) if is_ok(&e.func) && e.args.len() == 1 => {
                self.expr(&e.args[0], kind.ok())
            }
            Expr::Path(e) => self.kept_is(&e.path, kind),
            Expr::Struct(e) => {
                let name = e.path.segments.last().map(|s| s.ident.to_string()).unwrap_or_default();
                let name =
                    if name == "Self" { self.scope.of.clone().unwrap_or(name) } else { name };
                let found = self.tree.structure(self.scope.file, &name).cloned();
                for field in &e.fields {
                    let known = found.iter().flat_map(|found| &found.fields);
                    let kind = known.into_iter().find(
                        |(name, ..)| matches!(&field.member, syn::Member::Named(n) if n == name),
                    );
                    let kind = kind.map_or(Ty::Unknown, |(_, kind, _)| kind.clone());
                    self.expr(&field.expr, kind);
                }
                if let Some(rest) = &e.rest {
                    self.expr(rest, Ty::Unknown);
                }
            }
            Expr::MethodCall(_) | Expr::Await(_) | Expr::Try(_) | Expr::Call(_) => {
                self.chain(expr, kind);
            }
            _ => {
                self.expected = Ty::Unknown;
                self.depth += 1;
                syn::visit::visit_expr(self, expr);
                self.depth -= 1;
            }
        }
    }

    /// Expressions among a macro's arguments.
    fn inside(&mut self, mac: &syn::Macro) {
        let parser = syn::punctuated::Punctuated::<Expr, syn::Token![,]>::parse_terminated;
        if let Ok(arguments) = syn::parse::Parser::parse_str(parser, &mac.tokens.to_string()) {
            arguments.iter().for_each(|argument| self.expr(argument, Ty::Unknown));
        }
    }

    /// A variable that ends a function says what was kept in it.
    fn kept_is(&mut self, path: &syn::Path, kind: Ty) {
        let Some(name) = path.get_ident().map(ToString::to_string) else { return };
        let kept = self.kept.iter().rev().find(|(known, _)| *known == name);
        if let Some((_, at)) = kept
            && let Some(site) = self.sites.get_mut(*at)
            && site.row == Ty::Unknown
        {
            site.row = row(site.fetch.as_deref(), kind);
        }
    }

    /// Calls of methods on each other, down to what they begin with.
    fn chain(&mut self, expr: &Expr, kind: Ty) {
        let (mut methods, mut root) = (Vec::new(), expr);
        loop {
            root = match root {
                Expr::MethodCall(e) => {
                    methods.push(e);
                    &e.receiver
                }
                Expr::Await(e) => &e.base,
                Expr::Try(e) => &e.expr,
                Expr::Paren(e) => &e.expr,
                _ => break,
            };
        }
        methods.reverse();
        let site = match root {
            Expr::Call(call) => self.site(call),
            Expr::Path(e) => {
                let name = e.path.get_ident().map(ToString::to_string).unwrap_or_default();
                let kept = self.kept.iter().rev().find(|(known, _)| *known == name);
                let goes_on = |m: &&syn::ExprMethodCall| {
                    let name = m.method.to_string();
                    is_fetch(&name)
                        || ["bind", "execute", "unwrap_or_default"].contains(&name.as_str())
                };
                kept.map(|(_, at)| *at).filter(|_| methods.iter().any(goes_on))
            }
            _ => None,
        };
        // Rows that are made into something else are not of the type that is expected.
        let mut read = site.is_some_and(|at| self.sites[at].fetch.is_some());
        let (mut changed, mut defaulted) = (false, false);
        for method in &methods {
            let name = method.method.to_string();
            if let Some(at) = site {
                if is_fetch(&name) {
                    self.sites[at].fetch = Some(name);
                    read = true;
                } else if name == "bind" && !read {
                    self.sites[at].binds.extend(method.args.first().cloned());
                } else if name == "unwrap_or_default" {
                    defaulted = true;
                } else {
                    changed |= read && name != "map_err";
                }
            }
            method.args.iter().for_each(|argument| self.expr(argument, Ty::Unknown));
        }
        match (site, root) {
            (Some(at), _) => {
                let kind = if defaulted { Ty::Option(Box::new(kind)) } else { kind };
                let site = &mut self.sites[at];
                if site.row == Ty::Unknown && !changed {
                    site.row = row(site.fetch.as_deref(), kind);
                }
            }
            (None, Expr::Call(call)) => {
                if let (Expr::Path(path), Some(wanted)) = (&*call.func, &self.wanted)
                    && path.path.segments.last().is_some_and(|s| s.ident == wanted)
                {
                    self.calls.push((self.scope.clone(), call.args.iter().cloned().collect()));
                }
                self.expr(&call.func, Ty::Unknown);
                call.args.iter().for_each(|argument| self.expr(argument, Ty::Unknown));
            }
            (None, root @ (Expr::MethodCall(_) | Expr::Await(_) | Expr::Try(_))) => {
                unreachable!("a chain begins with {}", matches!(root, Expr::Try(_)))
            }
            (None, Expr::Path(_)) => {}
            (None, root) => self.expr(root, Ty::Unknown),
        }
    }

    fn site(&mut self, call: &syn::ExprCall) -> Option<usize> {
        let Expr::Path(path) = &*call.func else { return None };
        let last = path.path.segments.last()?;
        let kind = match last.ident.to_string().as_str() {
            "query" => Call::Query,
            "query_as" => Call::As,
            "query_scalar" => Call::Scalar,
            "raw_sql" => Call::Raw,
            "new" if path.path.segments.first()?.ident == "QueryBuilder" => Call::Built,
            "query_with" | "query_as_with" | "query_scalar_with" => Call::Built,
            _ => return None,
        };
        let first = path.path.segments.first()?;
        if !["sqlx", "QueryBuilder"].contains(&first.ident.to_string().as_str())
            || call.args.is_empty()
        {
            return None;
        }
        let mut row = Ty::Unknown;
        if let syn::PathArguments::AngleBracketed(arguments) = &last.arguments
            && let Some(syn::GenericArgument::Type(kind)) = arguments.args.last()
            && arguments.args.len() == 2
        {
            row = Ty::of(kind, None);
        }
        self.sites.push(Site {
            place: format!("{}: {}", self.tree.name(self.scope.file), self.scope.function),
            call: kind,
            scope: self.scope.clone(),
            text: call.args[0].clone(),
            binds: Vec::new(),
            fetch: None,
            row,
            reads: Vec::new(),
        });
        Some(self.sites.len() - 1)
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_expr(&mut self, expr: &'ast Expr) {
        self.expr(expr, Ty::Unknown);
    }

    fn visit_block(&mut self, block: &'ast syn::Block) {
        self.block(block, Ty::Unknown);
    }
}

fn ident(pat: &syn::Pat) -> Option<String> {
    match pat {
        syn::Pat::Ident(name) => Some(name.ident.to_string()),
        syn::Pat::Type(typed) => ident(&typed.pat),
        _ => None,
    }
}

fn is_ok(func: &Expr) -> bool {
    matches!(func, Expr::Path(path) if path.path.is_ident("Ok") || path.path.is_ident("Some"))
}

fn is_fetch(name: &str) -> bool {
    ["fetch_all", "fetch_one", "fetch_optional", "fetch"].contains(&name)
}

/// One row of what a fetch gives.
fn row(fetch: Option<&str>, kind: Ty) -> Ty {
    match (fetch, kind) {
        (Some("fetch_all"), Ty::List(row)) | (Some("fetch_optional"), Ty::Option(row)) => *row,
        (Some("fetch_one"), row) => row,
        _ => Ty::Unknown,
    }
}

/// `row.try_get("name")` in a function, and in those of the sources that it gives a `row`.
fn reads_of(
    tree: &Tree,
    function: &Function,
    reads: &mut Vec<(String, Ty)>,
    seen: &mut Vec<String>,
) {
    struct Reads<'a> {
        tree: &'a Tree,
        file: usize,
        kind: Ty,
        reads: &'a mut Vec<(String, Ty)>,
        seen: &'a mut Vec<String>,
    }
    impl<'ast> Visit<'ast> for Reads<'_> {
        fn visit_local(&mut self, local: &'ast Local) {
            if let (syn::Pat::Type(typed), Some(init)) = (&local.pat, &local.init)
                && let Expr::Try(tried) = &*init.expr
                && matches!(&*tried.expr, Expr::MethodCall(_))
            {
                self.kind = Ty::of(&typed.ty, None);
            }
            syn::visit::visit_local(self, local);
            self.kind = Ty::Unknown;
        }

        fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
            let mut kind = std::mem::replace(&mut self.kind, Ty::Unknown);
            if let Some(turbofish) = &call.turbofish
                && let Some(syn::GenericArgument::Type(given)) = turbofish.args.first()
            {
                kind = Ty::of(given, None);
            }
            if call.method == "try_get"
                && let Some(Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(name), .. })) =
                    call.args.first()
            {
                self.reads.push((name.value(), kind));
            }
            syn::visit::visit_expr_method_call(self, call);
        }

        fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
            let given = call.args.iter().any(|argument| {
                matches!(argument, Expr::Path(path) if path.path.is_ident("row"))
                    || matches!(argument, Expr::Reference(e)
                        if matches!(&*e.expr, Expr::Path(path) if path.path.is_ident("row")))
            });
            if let (true, Expr::Path(path)) = (given, &*call.func) {
                let name = path.path.segments.last().unwrap().ident.to_string();
                if let Some(function) = self.tree.function(self.file, &name)
                    && !self.seen.contains(&name)
                {
                    self.seen.push(name);
                    reads_of(self.tree, function, self.reads, self.seen);
                }
            }
            syn::visit::visit_expr_call(self, call);
        }
    }
    let file = function.file;
    let mut reader = Reads { tree, file, kind: Ty::Unknown, reads, seen };
    reader.visit_block(&function.block);
}
