//! Rust types as far as statements need them, and which of Postgres' types each goes with.

use syn::{GenericArgument, PathArguments, Type};

/// A Rust type; references and shared pointers are what they point to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ty {
    /// `i64`, `bool`, `text`, `bytes`, `uuid`, `time`, `decimal`, `json`.
    Plain(&'static str),
    Option(Box<Ty>),
    Result(Box<Ty>),
    List(Box<Ty>),
    Tuple(Vec<Ty>),
    Named(String),
    Unknown,
}

const PLAIN: [(&str, &str); 14] = [
    ("i16", "i16"),
    ("i32", "i32"),
    ("i64", "i64"),
    ("u32", "u32"),
    ("u64", "u64"),
    ("u128", "u128"),
    ("usize", "usize"),
    ("f64", "f64"),
    ("bool", "bool"),
    ("str", "text"),
    ("String", "text"),
    ("Uuid", "uuid"),
    ("DateTime", "time"),
    ("Decimal", "decimal"),
];

impl Ty {
    pub fn of(kind: &Type, of: Option<&str>) -> Self {
        match kind {
            Type::Reference(inner) => Self::of(&inner.elem, of),
            Type::Paren(inner) => Self::of(&inner.elem, of),
            Type::Group(inner) => Self::of(&inner.elem, of),
            Type::Slice(inner) => Self::list(Self::of(&inner.elem, of), &inner.elem),
            Type::Array(inner) => Self::list(Self::of(&inner.elem, of), &inner.elem),
            Type::Tuple(inner) => {
                Self::Tuple(inner.elems.iter().map(|t| Self::of(t, of)).collect())
            }
            Type::Path(path) => Self::of_path(path, of),
            _ => Self::Unknown,
        }
    }

    fn list(element: Self, kind: &Type) -> Self {
        match kind {
            Type::Path(path) if path.path.is_ident("u8") => Self::Plain("bytes"),
            _ => Self::List(Box::new(element)),
        }
    }

    fn of_path(path: &syn::TypePath, of: Option<&str>) -> Self {
        let Some(last) = path.path.segments.last() else { return Self::Unknown };
        let name = last.ident.to_string();
        let mut inner = Vec::new();
        if let PathArguments::AngleBracketed(arguments) = &last.arguments {
            for argument in &arguments.args {
                if let GenericArgument::Type(kind) = argument {
                    inner.push(kind);
                }
            }
        }
        let first = || inner.first().map_or(Self::Unknown, |kind| Self::of(kind, of));
        match name.as_str() {
            "Option" => Self::Option(Box::new(first())),
            "Result" => Self::Result(Box::new(first())),
            "Vec" => inner.first().map_or(Self::Unknown, |kind| Self::list(first(), kind)),
            "Arc" | "Box" | "Rc" | "Cow" => first(),
            "Json" | "RawValue" => Self::Plain("json"),
            "Self" => of.map_or(Self::Unknown, |name| Self::Named(name.to_owned())),
            _ => match PLAIN.iter().find(|(rust, _)| *rust == name) {
                Some((_, plain)) => Self::Plain(plain),
                None => Self::Named(name),
            },
        }
    }

    pub fn element(self) -> Self {
        match self {
            Self::List(inner) | Self::Option(inner) => *inner,
            _ => Self::Unknown,
        }
    }

    /// Without `Result`.
    pub fn ok(self) -> Self {
        match self {
            Self::Result(inner) => *inner,
            other => other,
        }
    }

    /// Without `Option`, and whether there was one.
    pub fn optional(&self) -> (&Self, bool) {
        match self {
            Self::Option(inner) => (inner, true),
            other => (other, false),
        }
    }

    /// Names of Postgres' types that a column may have which is read as this. None: not known.
    pub fn readable(&self) -> Option<Vec<String>> {
        let names: &[&str] = match self.optional().0 {
            Self::Plain(plain) => match *plain {
                "i16" => &["INT2"],
                "i32" => &["INT4"],
                "i64" => &["INT8"],
                "f64" => &["FLOAT8"],
                "bool" => &["BOOL"],
                "text" => &["TEXT", "VARCHAR", "NAME", "CHAR"],
                "bytes" => &["BYTEA"],
                "uuid" => &["UUID"],
                "time" => &["TIMESTAMPTZ"],
                "decimal" => &["NUMERIC"],
                "json" => &["JSON", "JSONB"],
                _ => return Some(Vec::new()),
            },
            Self::List(inner) => {
                let inner = inner.readable()?;
                return Some(inner.into_iter().map(|name| format!("{name}[]")).collect());
            }
            _ => return None,
        };
        Some(names.iter().map(|name| (*name).to_owned()).collect())
    }

    /// The type that the driver says a parameter of this has, in SQL. `unknown`: Postgres decides.
    pub fn parameter(&self) -> String {
        match self.optional().0 {
            Self::Plain(plain) => match *plain {
                "i16" => "int2",
                "i32" => "int4",
                "i64" => "int8",
                "f64" => "float8",
                "bool" => "bool",
                "text" => "text",
                "bytes" => "bytea",
                "uuid" => "uuid",
                "time" => "timestamptz",
                "decimal" => "numeric",
                _ => "unknown",
            }
            .to_owned(),
            Self::List(inner) => match inner.parameter() {
                inner if inner == "unknown" => inner,
                inner => format!("{inner}[]"),
            },
            _ => "unknown".to_owned(),
        }
    }
}
