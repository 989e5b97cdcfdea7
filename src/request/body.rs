//! What a JSON object may hold, declared once: the type, its reader and its schema are made of one
//! list of fields, so that none of them can say what another does not.

use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};

use super::{Fault, Fields};

/// Schemas by their names in the OpenAPI document.
pub type Schemas = Vec<(String, RefOr<Schema>)>;

/// A JSON object with known fields.
pub trait Body: Sized {
    /// Bytes that a request may hold of it.
    const BYTES_MAX: usize = 1024 * 1024;

    /// Takes its fields out of `fields`. None: one of them is wrong, and `fields` has noted which.
    fn take(fields: &mut Fields) -> Option<Self>;

    /// Adds its fields to a schema.
    fn describe(object: ObjectBuilder) -> ObjectBuilder;
}

/// What one field holds: which tokens are read, and the schema that says so, side by side.
pub trait Value: Sized {
    /// Reads a JSON token that is not null.
    fn read(token: &str) -> Result<Self, Fault>;

    fn schema() -> Schema;

    /// Adds the schemas that its own refers to by name.
    fn referred(_: &mut Schemas) {}
}

/// A value that must be there, or an `Option` of one that may be left out or be null.
pub trait Field: Sized {
    const REQUIRED: bool;

    fn of(token: Option<&str>) -> Result<Self, Fault>;

    fn schema() -> Schema;

    fn referred(_: &mut Schemas) {}
}

impl<T: Value> Field for T {
    const REQUIRED: bool = true;

    fn of(token: Option<&str>) -> Result<Self, Fault> {
        T::read(token.ok_or_else(Fault::missing)?)
    }

    fn schema() -> Schema {
        T::schema()
    }

    fn referred(schemas: &mut Schemas) {
        T::referred(schemas);
    }
}

impl<T: Value> Field for Option<T> {
    const REQUIRED: bool = false;

    fn of(token: Option<&str>) -> Result<Self, Fault> {
        token.map(T::read).transpose()
    }

    fn schema() -> Schema {
        or_null(T::schema())
    }

    fn referred(schemas: &mut Schemas) {
        T::referred(schemas);
    }
}

/// A switch: left out or null, it is off.
impl Field for bool {
    const REQUIRED: bool = false;

    fn of(token: Option<&str>) -> Result<Self, Fault> {
        match token {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Fault::value("must be true or false")),
        }
    }

    fn schema() -> Schema {
        or_null(ObjectBuilder::new().schema_type(Type::Boolean).into())
    }
}

fn or_null(mut schema: Schema) -> Schema {
    let nullable = |kind: &mut SchemaType| {
        let kinds = match std::mem::take(kind) {
            SchemaType::Type(kind) => vec![kind, Type::Null],
            SchemaType::Array(kinds) => kinds.into_iter().chain([Type::Null]).collect(),
            SchemaType::AnyValue => Vec::new(),
        };
        *kind = SchemaType::Array(kinds);
    };
    match &mut schema {
        Schema::Object(object) => nullable(&mut object.schema_type),
        Schema::Array(array) => nullable(&mut array.schema_type),
        _ => {}
    }
    schema
}

/// Adds one field to the schema of a body. What the declaration says about the field stands there
/// instead of what its type says.
pub fn property<T: Field>(object: ObjectBuilder, name: &str, about: &[&str]) -> ObjectBuilder {
    let mut schema = T::schema();
    if !about.is_empty() {
        let about = Some(sentence(about));
        match &mut schema {
            Schema::Object(object) => object.description = about,
            Schema::Array(array) => array.description = about,
            _ => {}
        }
    }
    let object = object.property(name, schema);
    if T::REQUIRED { object.required(name) } else { object }
}

/// The schema of a body: its fields and no others.
pub fn schema_of<B: Body>(about: &[&str]) -> Schema {
    B::describe(closed(about)).into()
}

/// An object that has no fields but those that are added to it.
pub(super) fn closed(about: &[&str]) -> ObjectBuilder {
    ObjectBuilder::new()
        .description(Some(sentence(about)))
        .additional_properties(Some(AdditionalProperties::FreeForm(false)))
}

/// The lines of a doc comment as one.
fn sentence(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// Declares a body: `name as "nameInJson": Type` for each field, in the order in which what is wrong
/// is reported. Doc comments are the descriptions in the published schemas. `..name: Type` takes in
/// the fields of another body; `of 4 MiB` behind the name is how large a request may be. Its name in the OpenAPI document is that of the type without `Body`.
macro_rules! body {
    (
        $(#[doc = $about:literal])*
        pub struct $Body:ident $(of $mebibytes:literal MiB)? {
            $($(#[doc = $doc:literal])* $field:ident as $name:literal: $Field:ty,)*
            $(..$part:ident: $Part:ty,)*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Debug)]
        pub struct $Body {
            $($(#[doc = $doc])* pub $field: $Field,)*
            $(pub $part: $Part,)*
        }

        impl $crate::request::Body for $Body {
            $(const BYTES_MAX: usize = $mebibytes * 1024 * 1024;)?

            fn take(fields: &mut $crate::request::Fields) -> Option<Self> {
                // All of them are read before the first that is wrong ends it: each is reported.
                $(let $field = fields.take::<$Field>($name);)*
                $(let $part = <$Part as $crate::request::Body>::take(fields);)*
                Some(Self { $($field: $field?,)* $($part: $part?,)* })
            }

            fn describe(
                object: utoipa::openapi::schema::ObjectBuilder,
            ) -> utoipa::openapi::schema::ObjectBuilder {
                $(let object = $crate::request::property::<$Field>(object, $name, &[$($doc),*]);)*
                $(let object = <$Part as $crate::request::Body>::describe(object);)*
                object
            }
        }

        impl utoipa::PartialSchema for $Body {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                $crate::request::schema_of::<Self>(&[$($about),*]).into()
            }
        }

        impl utoipa::ToSchema for $Body {
            fn name() -> std::borrow::Cow<'static, str> {
                stringify!($Body).trim_end_matches("Body").into()
            }

            fn schemas(schemas: &mut $crate::request::Schemas) {
                $(<$Field as $crate::request::Field>::referred(schemas);)*
                $(<$Part as utoipa::ToSchema>::schemas(schemas);)*
            }
        }
    };
}
pub(crate) use body;
