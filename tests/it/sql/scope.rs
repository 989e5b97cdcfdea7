//! What local names are bound to where a statement stands, and the Rust type of an expression there.

use std::rc::Rc;

use syn::{Expr, FnArg, Lit, Member, Pat, Signature};

use super::tree::Tree;
use super::types::Ty;

/// What a local name is.
#[derive(Clone)]
pub enum Bound {
    /// A variable's first value, with its type where that is spelled out.
    Let(Expr, Ty),
    /// A loop's variable: each of these.
    Each(Expr),
    /// A parameter of the function: its place.
    Parameter(usize, Ty),
    Typed(Ty),
    /// A field of something.
    Part(Rc<Bound>, String),
}

/// A place in the sources.
#[derive(Clone)]
pub struct Scope {
    pub file: usize,
    pub function: String,
    pub of: Option<String>,
    pub names: Vec<(String, Rc<Bound>)>,
}

impl Scope {
    pub fn of_file(file: usize) -> Self {
        Self { file, function: String::new(), of: None, names: Vec::new() }
    }

    pub fn enter(&mut self, sig: &Signature) {
        for (place, input) in sig.inputs.iter().enumerate() {
            match input {
                FnArg::Receiver(_) => {
                    let kind = self.of.clone().map_or(Ty::Unknown, Ty::Named);
                    self.names.push(("self".to_owned(), Rc::new(Bound::Parameter(place, kind))));
                }
                FnArg::Typed(input) => {
                    let kind = Ty::of(&input.ty, self.of.as_deref());
                    self.bind(&input.pat, Bound::Parameter(place, kind));
                }
            }
        }
    }

    pub fn bind(&mut self, pat: &Pat, bound: Bound) {
        match pat {
            Pat::Ident(ident) => self.names.push((ident.ident.to_string(), Rc::new(bound))),
            Pat::Type(typed) => {
                let kind = Ty::of(&typed.ty, self.of.as_deref());
                let bound = match bound {
                    Bound::Let(init, _) => Bound::Let(init, kind),
                    _ => Bound::Typed(kind),
                };
                self.bind(&typed.pat, bound);
            }
            Pat::Reference(inner) => self.bind(&inner.pat, bound),
            Pat::Tuple(tuple) => {
                let whole = Rc::new(bound);
                for (place, pat) in tuple.elems.iter().enumerate() {
                    self.bind(pat, Bound::Part(whole.clone(), place.to_string()));
                }
            }
            Pat::Slice(slice) => {
                let whole = Rc::new(bound);
                for (place, pat) in slice.elems.iter().enumerate() {
                    self.bind(pat, Bound::Part(whole.clone(), place.to_string()));
                }
            }
            Pat::Struct(pattern) => {
                let whole = Rc::new(bound);
                for field in &pattern.fields {
                    let Member::Named(name) = &field.member else { continue };
                    self.bind(&field.pat, Bound::Part(whole.clone(), name.to_string()));
                }
            }
            _ => {}
        }
    }

    pub fn name(&self, name: &str) -> Option<&Rc<Bound>> {
        self.names.iter().rev().find(|(known, _)| known == name).map(|(_, bound)| bound)
    }

    fn bound(&self, tree: &Tree, bound: &Bound) -> Ty {
        match bound {
            Bound::Let(init, Ty::Unknown) => self.kind(tree, init),
            Bound::Let(_, kind) | Bound::Parameter(_, kind) | Bound::Typed(kind) => kind.clone(),
            Bound::Each(all) => self.kind(tree, all).element(),
            Bound::Part(whole, member) => {
                let whole = self.bound(tree, whole);
                self.field(tree, &whole, member)
            }
        }
    }

    fn field(&self, tree: &Tree, whole: &Ty, member: &str) -> Ty {
        match whole {
            Ty::List(element) => Some((**element).clone()),
            Ty::Tuple(parts) => member.parse().ok().and_then(|at: usize| parts.get(at).cloned()),
            Ty::Named(name) => tree.structure(self.file, name).and_then(|found| {
                let field = found.fields.iter().find(|(name, ..)| name == member);
                field.map(|(_, kind, _)| kind.clone())
            }),
            _ => None,
        }
        .unwrap_or(Ty::Unknown)
    }

    /// The type of an expression, as far as it can be known.
    pub fn kind(&self, tree: &Tree, expr: &Expr) -> Ty {
        match expr {
            Expr::Reference(e) => self.kind(tree, &e.expr),
            Expr::Paren(e) => self.kind(tree, &e.expr),
            Expr::Unary(e) => self.kind(tree, &e.expr),
            Expr::Await(e) => self.kind(tree, &e.base),
            Expr::Try(e) => match self.kind(tree, &e.expr) {
                Ty::Result(inner) | Ty::Option(inner) => *inner,
                _ => Ty::Unknown,
            },
            Expr::Lit(e) => match &e.lit {
                Lit::Str(_) => Ty::Plain("text"),
                Lit::Bool(_) => Ty::Plain("bool"),
                Lit::Int(number) => match number.suffix() {
                    "i16" => Ty::Plain("i16"),
                    "i32" => Ty::Plain("i32"),
                    "i64" => Ty::Plain("i64"),
                    _ => Ty::Unknown,
                },
                _ => Ty::Unknown,
            },
            Expr::Tuple(e) => Ty::Tuple(e.elems.iter().map(|e| self.kind(tree, e)).collect()),
            Expr::Cast(e) => Ty::of(&e.ty, None),
            Expr::Binary(e) => match e.op {
                syn::BinOp::Add(_) | syn::BinOp::Sub(_) | syn::BinOp::Mul(_) => {
                    self.kind(tree, &e.left)
                }
                syn::BinOp::Eq(_) | syn::BinOp::Ne(_) => Ty::Plain("bool"),
                _ => Ty::Unknown,
            },
            Expr::Field(e) => {
                let whole = self.kind(tree, &e.base);
                let member = match &e.member {
                    Member::Named(name) => name.to_string(),
                    Member::Unnamed(at) => at.index.to_string(),
                };
                self.field(tree, &whole, &member)
            }
            Expr::Path(e) => {
                let segments = &e.path.segments;
                let last = segments.last().map(|s| s.ident.to_string()).unwrap_or_default();
                if segments.len() == 1
                    && let Some(bound) = self.name(&last)
                {
                    // What a name was before it was bound again.
                    let mut outer = self.clone();
                    let at = outer.names.iter().rposition(|(known, _)| *known == last).unwrap();
                    let bound = bound.clone();
                    outer.names.truncate(at);
                    return outer.bound(tree, &bound);
                }
                tree.constant(self.file, &last).map_or(Ty::Unknown, |(_, _, kind)| kind.clone())
            }
            Expr::Closure(e) => self.kind(tree, &e.body),
            Expr::Call(e) => self.call(tree, e),
            Expr::MethodCall(e) => self.method(tree, e),
            _ => Ty::Unknown,
        }
    }

    fn call(&self, tree: &Tree, call: &syn::ExprCall) -> Ty {
        let Expr::Path(path) = &*call.func else { return Ty::Unknown };
        let segments: Vec<String> =
            path.path.segments.iter().map(|s| s.ident.to_string()).collect();
        let last = segments.last().cloned().unwrap_or_default();
        if segments.len() == 1
            && let Some(bound) = self.name(&last)
        {
            return self.bound(tree, bound);
        }
        let of = segments.len().checked_sub(2).map(|at| segments[at].as_str());
        let found = of.and_then(|of| tree.method(of, &last));
        let Some(found) = found.or_else(|| tree.function(self.file, &last)) else {
            return Ty::Unknown;
        };
        let kind = found.returns();
        // `fn column<T, U>(rows: &[T], of: impl Fn(&T) -> U) -> Vec<U>`
        if let (Ty::List(_), Some(Expr::Closure(closure)), Some(rows)) =
            (&kind, call.args.last(), call.args.first())
            && found.sig.generics.params.len() > 1
        {
            let element = self.kind(tree, rows).element();
            return Ty::List(Box::new(self.body(tree, closure, element)));
        }
        kind
    }

    fn body(&self, tree: &Tree, closure: &syn::ExprClosure, element: Ty) -> Ty {
        let mut inner = self.clone();
        if let Some(pat) = closure.inputs.first() {
            inner.bind(pat, Bound::Typed(element));
        }
        inner.kind(tree, &closure.body)
    }

    fn method(&self, tree: &Tree, call: &syn::ExprMethodCall) -> Ty {
        let receiver = self.kind(tree, &call.receiver);
        let name = call.method.to_string();
        match name.as_str() {
            "iter" | "into_iter" | "filter" | "copied" | "cloned" | "clone" | "as_deref"
            | "as_ref" | "to_owned" | "to_vec" | "rev" | "chain" | "as_slice" | "max" | "min"
            | "as_deref_mut" => receiver,
            "unwrap_or" | "unwrap_or_default" | "unwrap_or_else" => receiver.element(),
            "as_bytes" => Ty::Plain("bytes"),
            "to_string" => Ty::Plain("text"),
            "enumerate" => {
                let element = receiver.element();
                Ty::List(Box::new(Ty::Tuple(vec![Ty::Plain("usize"), element])))
            }
            "zip" => {
                let other = call.args.first().map_or(Ty::Unknown, |e| self.kind(tree, e));
                Ty::List(Box::new(Ty::Tuple(vec![receiver.element(), other.element()])))
            }
            "collect" => match receiver {
                Ty::List(_) => receiver,
                _ => Ty::List(Box::new(Ty::Unknown)),
            },
            "map" => {
                let option = matches!(receiver, Ty::Option(_));
                let element = receiver.element();
                let body = match call.args.first() {
                    Some(Expr::Closure(closure)) => self.body(tree, closure, element),
                    Some(Expr::Path(path)) => self.applied(tree, path, element),
                    _ => Ty::Unknown,
                };
                match option {
                    true => Ty::Option(Box::new(body)),
                    false => Ty::List(Box::new(body)),
                }
            }
            "as_str" if matches!(receiver, Ty::Plain(_) | Ty::Unknown) => Ty::Plain("text"),
            _ => match receiver {
                Ty::Named(of) => {
                    tree.method(&of, &name).map_or(Ty::Unknown, |found| found.returns())
                }
                _ => Ty::Unknown,
            },
        }
    }

    /// `.map(WalletId::as_str)`, `.map(i64::from)`
    fn applied(&self, tree: &Tree, path: &syn::ExprPath, element: Ty) -> Ty {
        let segments: Vec<String> =
            path.path.segments.iter().map(|s| s.ident.to_string()).collect();
        match segments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["str", "as_bytes"] => Ty::Plain("bytes"),
            ["i64", "from"] => Ty::Plain("i64"),
            ["i32", "from"] => Ty::Plain("i32"),
            [.., "as_slice"] => element,
            ["String" | "str", _] => Ty::Plain("text"),
            [.., of, name] => tree.method(of, name).map_or(Ty::Unknown, |found| found.returns()),
            _ => Ty::Unknown,
        }
    }
}
