//! The text of a statement: literals, constants, `concat!`, `format!`, macros of the sources, and
//! what a variable may be. Several texts where the code chooses between them.

use syn::parse::Parser as _;
use syn::punctuated::Punctuated;
use syn::{Expr, Lit, Stmt, Token};

use super::scope::{Bound, Scope};
use super::tree::Tree;

pub type Texts = Result<Vec<String>, String>;

/// More variants than this are a product that nobody meant.
const MOST: usize = 64;

/// All texts that an expression may be.
pub fn texts(tree: &Tree, scope: &Scope, expr: &Expr) -> Texts {
    match expr {
        Expr::Lit(e) => match &e.lit {
            Lit::Str(text) => Ok(vec![text.value()]),
            Lit::Int(number) => Ok(vec![number.base10_digits().to_owned()]),
            _ => Err("a literal that is no text".to_owned()),
        },
        Expr::Paren(e) => texts(tree, scope, &e.expr),
        Expr::Group(e) => texts(tree, scope, &e.expr),
        Expr::Reference(e) => texts(tree, scope, &e.expr),
        Expr::Block(e) => tail(&e.block).map_or_else(
            || Err("a block without a value".to_owned()),
            |(inner, names)| {
                let mut scope = scope.clone();
                names.iter().for_each(|(pat, init)| {
                    scope.bind(pat, Bound::Let((*init).clone(), super::types::Ty::Unknown));
                });
                texts(tree, &scope, inner)
            },
        ),
        Expr::If(e) => {
            let then = texts(tree, scope, tail(&e.then_branch).ok_or("an if without a value")?.0)?;
            let (_, other) = e.else_branch.as_ref().ok_or("an if without else")?;
            Ok([then, texts(tree, scope, other)?].concat())
        }
        Expr::Match(e) => {
            let mut all = Vec::new();
            for arm in &e.arms {
                all.extend(texts(tree, scope, &arm.body)?);
            }
            Ok(all)
        }
        Expr::Field(e) => fields(tree, scope, e),
        Expr::Path(e) => named(tree, scope, &e.path),
        Expr::Call(e) => called(tree, scope, e),
        Expr::MethodCall(e) => match e.method.to_string().as_str() {
            "to_owned" | "as_str" | "into" | "to_string" | "clone" => {
                texts(tree, scope, &e.receiver)
            }
            "as_millis" | "as_secs" => Ok(vec!["1".to_owned()]),
            other => Err(format!("a value of .{other}()")),
        },
        Expr::Macro(e) => expanded(tree, scope, &e.mac),
        _ => Err("an expression of a kind that is not followed".to_owned()),
    }
}

type Inits<'a> = Vec<(&'a syn::Pat, &'a Expr)>;

/// A block's value, and the variables before it.
fn tail(block: &syn::Block) -> Option<(&Expr, Inits<'_>)> {
    let mut names = Vec::new();
    for stmt in &block.stmts {
        match stmt {
            Stmt::Local(local) => names.push((&local.pat, &*local.init.as_ref()?.expr)),
            Stmt::Expr(expr, None) => return Some((expr, names)),
            _ => {}
        }
    }
    None
}

fn named(tree: &Tree, scope: &Scope, path: &syn::Path) -> Texts {
    let name = path.segments.last().map(|s| s.ident.to_string()).unwrap_or_default();
    if path.segments.len() == 1
        && let Some(at) = scope.names.iter().rposition(|(known, _)| *known == name)
    {
        let (_, bound) = &scope.names[at];
        let mut outer = scope.clone();
        outer.names.truncate(at);
        return match &**bound {
            Bound::Let(init, _) => texts(tree, &outer, init),
            Bound::Each(all) => each(tree, &outer, all, None),
            Bound::Parameter(place, _) => given(tree, scope, *place, &name),
            Bound::Part(whole, place) => match &**whole {
                Bound::Let(init, _) => part(tree, &outer, init, place),
                _ => Err(format!("`{name}`, a part of something")),
            },
            Bound::Typed(_) => Err(format!("`{name}`, which has no value to read")),
        };
    }
    match tree.constant(scope.file, &name) {
        Some((file, value, _)) => texts(tree, &Scope::of_file(file), value),
        None => Err(format!("`{name}`, which is nowhere")),
    }
}

/// A variable that is one of a tuple's parts.
fn part(tree: &Tree, scope: &Scope, whole: &Expr, place: &str) -> Texts {
    let at = place.parse::<usize>().map_err(|_| format!("a field {place}"))?;
    match whole {
        Expr::Tuple(tuple) => {
            let part = tuple.elems.get(at).ok_or("a part that is not there")?;
            texts(tree, scope, part)
        }
        Expr::Match(choice) => {
            let mut all = Vec::new();
            for arm in &choice.arms {
                all.extend(part(tree, scope, &arm.body, place)?);
            }
            Ok(all)
        }
        _ => Err("a part of an expression".to_owned()),
    }
}

/// What the callers in the same file pass.
fn given(tree: &Tree, scope: &Scope, place: usize, name: &str) -> Texts {
    let calls = super::sites::calls(tree, scope.file, &scope.function);
    if calls.is_empty() {
        return Err(format!("the parameter `{name}`, and no call of {} is here", scope.function));
    }
    let mut all = Vec::new();
    for (scope, arguments) in calls {
        let argument = arguments.get(place).ok_or("a call with too few arguments")?;
        all.extend(texts(tree, &scope, argument)?);
    }
    Ok(all)
}

/// The elements of an array, or a field of each of them.
fn each(tree: &Tree, scope: &Scope, all: &Expr, field: Option<&str>) -> Texts {
    let mut scope = scope.clone();
    let all = match all {
        Expr::Path(path) => {
            let name = path.path.segments.last().map(|s| s.ident.to_string()).unwrap_or_default();
            match scope.name(&name).map(|bound| &**bound) {
                Some(Bound::Let(init, _)) => &init.clone(),
                _ => {
                    let found = tree.constant(scope.file, &name);
                    let (file, value, _) = found.ok_or(format!("`{name}`, which is nowhere"))?;
                    scope = Scope::of_file(file);
                    value
                }
            }
        }
        other => other,
    };
    let all = match all {
        Expr::Reference(inner) => &*inner.expr,
        other => other,
    };
    let Expr::Array(array) = all else { return Err("a loop over no array".to_owned()) };
    let mut found = Vec::new();
    for element in &array.elems {
        let element = match (element, field) {
            (Expr::Struct(element), Some(field)) => {
                let field = element
                    .fields
                    .iter()
                    .find(|f| matches!(&f.member, syn::Member::Named(name) if name == field));
                &field.ok_or("a field that is not there")?.expr
            }
            (element, None) => element,
            _ => return Err("a field of what is no struct".to_owned()),
        };
        found.extend(texts(tree, &scope, element)?);
    }
    Ok(found)
}

fn fields(tree: &Tree, scope: &Scope, field: &syn::ExprField) -> Texts {
    let (Expr::Path(base), syn::Member::Named(name)) = (&*field.base, &field.member) else {
        return Err("a field".to_owned());
    };
    let base = base.path.get_ident().map(ToString::to_string).unwrap_or_default();
    match scope.name(&base).map(|bound| &**bound) {
        Some(Bound::Each(all)) => each(tree, scope, all, Some(&name.to_string())),
        _ => Err(format!("the field {base}.{name}")),
    }
}

fn called(tree: &Tree, scope: &Scope, call: &syn::ExprCall) -> Texts {
    let Expr::Path(path) = &*call.func else { return Err("a call".to_owned()) };
    let name = path.path.segments.last().map(|s| s.ident.to_string()).unwrap_or_default();
    if ["AssertSqlSafe", "statement"].contains(&name.as_str()) && call.args.len() == 1 {
        return texts(tree, scope, &call.args[0]);
    }
    let Some(function) = tree.function(scope.file, &name) else {
        return Err(format!("a call of {name}"));
    };
    let mut inner = Scope::of_file(function.file);
    for (input, argument) in function.sig.inputs.iter().zip(&call.args) {
        let (syn::FnArg::Typed(input), Ok(values)) = (input, texts(tree, scope, argument)) else {
            continue;
        };
        if let [value] = values.as_slice() {
            let literal = syn::parse_str(&format!("{value:?}")).map_err(|e| e.to_string())?;
            inner.bind(&input.pat, Bound::Let(literal, super::types::Ty::Unknown));
        }
    }
    let block = Expr::Block(syn::ExprBlock {
        attrs: Vec::new(),
        label: None,
        block: function.block.clone(),
    });
    texts(tree, &inner, &block).map_err(|why| format!("{name}(): {why}"))
}

fn expanded(tree: &Tree, scope: &Scope, mac: &syn::Macro) -> Texts {
    let name = mac.path.segments.last().map(|s| s.ident.to_string()).unwrap_or_default();
    let parse = |text: &str| {
        let parser = Punctuated::<Expr, Token![,]>::parse_terminated;
        parser.parse_str(text).map_err(|error| format!("{name}!: {error}"))
    };
    let arguments = parse(&mac.tokens.to_string())?;
    match name.as_str() {
        "concat" => {
            let parts = arguments.iter().map(|part| texts(tree, scope, part));
            product(&parts.collect::<Result<Vec<_>, _>>()?)
        }
        "format" => formatted(tree, scope, &arguments),
        _ => {
            let rules = tree.macro_rules(scope.file, &name);
            let rules = rules.ok_or_else(|| format!("the macro {name}!"))?;
            let (head, body) = rules.split_once("=>").ok_or("a macro without a rule")?;
            let mut body = body.trim().trim_end_matches(';').trim().to_owned();
            let parameters = head.split('$').skip(1).map(|p| p.split(':').next().unwrap().trim());
            let parameters: Vec<&str> = parameters.collect();
            let given: Vec<String> = split(&mac.tokens.to_string());
            for (parameter, value) in parameters.iter().zip(&given) {
                for mark in [format!("$ {parameter}"), format!("${parameter}")] {
                    body = body.replace(&mark, value);
                }
            }
            let inner = body.trim_start_matches('{').trim_end_matches('}');
            let value = syn::parse_str(inner).map_err(|error| format!("{name}!: {error}"))?;
            texts(tree, scope, &value)
        }
    }
}

/// Literal arguments of a macro, as they are written.
fn split(tokens: &str) -> Vec<String> {
    let parser = Punctuated::<Lit, Token![,]>::parse_terminated;
    let literals = parser.parse_str(tokens).unwrap_or_default();
    literals
        .iter()
        .map(|literal| match literal {
            Lit::Str(text) => format!("{:?}", text.value()),
            Lit::Int(number) => number.to_string(),
            _ => String::new(),
        })
        .collect()
}

fn product(parts: &[Vec<String>]) -> Texts {
    let mut all = vec![String::new()];
    for part in parts {
        all = all
            .iter()
            .flat_map(|left| part.iter().map(move |right| format!("{left}{right}")))
            .collect();
        if all.len() > MOST {
            return Err(format!("more than {MOST} variants"));
        }
    }
    Ok(all)
}

fn formatted(tree: &Tree, scope: &Scope, arguments: &Punctuated<Expr, Token![,]>) -> Texts {
    let Some(Expr::Lit(syn::ExprLit { lit: Lit::Str(text), .. })) = arguments.first() else {
        return Err("format! without a text".to_owned());
    };
    let text = text.value();
    let mut positional = arguments.iter().skip(1);
    let (mut parts, mut rest) = (Vec::new(), text.as_str());
    while let Some(at) = rest.find(['{', '}']) {
        let (before, behind) = rest.split_at(at);
        parts.push(vec![before.to_owned()]);
        if behind.starts_with("{{") || behind.starts_with("}}") {
            parts.push(vec![behind[..1].to_owned()]);
            rest = &behind[2..];
            continue;
        }
        let end = behind.find('}').ok_or("a brace that stays open")?;
        let name = behind[1..end].split(':').next().unwrap_or_default();
        parts.push(match name {
            "" => texts(tree, scope, positional.next().ok_or("too few arguments")?)?,
            name => match arguments.iter().find_map(|argument| assigned(argument, name)) {
                Some(value) => texts(tree, scope, value)?,
                None => named(tree, scope, &syn::parse_str(name).map_err(|e| e.to_string())?)?,
            },
        });
        rest = &behind[end + 1..];
    }
    parts.push(vec![rest.to_owned()]);
    product(&parts)
}

/// `name = value` among the arguments of `format!`.
fn assigned<'a>(argument: &'a Expr, name: &str) -> Option<&'a Expr> {
    match argument {
        Expr::Assign(e) if matches!(&*e.left, Expr::Path(p) if p.path.is_ident(name)) => {
            Some(&e.right)
        }
        _ => None,
    }
}
