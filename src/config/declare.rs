//! The form in which settings are declared: one entry has the name, the default, the meaning and,
//! where one field holds the value, the field's type and how it is read.
//!
//! ```text
//! /// its meaning, one line
//! NAME = "default" => field: Type = reading(bounds);
//! NAME = secret;                      never shown; read by what stands under `with`
//! NAME = "default" checked by reading();
//! ```
//! `with` has the fields that are read from several settings, each with the function that does so.
//! One error lists all that is refused. What an entry reads with is a method of `Reader`.

/// One setting as users know it.
#[derive(Debug)]
pub struct Setting {
    pub name: &'static str,
    /// Empty: unset.
    pub default: &'static str,
    pub meaning: &'static str,
    /// Never shown.
    pub secret: bool,
}

macro_rules! settings {
    (@default secret) => { "" };
    (@default $default:literal) => { $default };
    (@secret secret) => { true };
    (@secret $default:literal) => { false };
    ($(
        $(#[$about:meta])*
        pub struct $group:ident {$(
            #[doc = $meaning:literal]
            $NAME:ident = $default:tt
                $(=> $field:ident: $type:ty = $read:ident($($arg:expr),*))?
                $(checked by $check:ident($($bound:expr),*))?;
        )*}
        $(with {$($(#[$note:meta])* $derived:ident: $of:ty = $value:expr;)*})?
    )*) => {
        /// Every setting, in the order of `.env.example`.
        pub const SETTINGS: &[Setting] = &[$($(Setting {
            name: name::$NAME,
            default: settings!(@default $default),
            meaning: $meaning.trim_ascii(),
            secret: settings!(@secret $default),
        },)*)*];

        /// The settings' names.
        pub mod name {
            $($(pub const $NAME: &str = stringify!($NAME);)*)*
        }

        $(
            $(#[$about])*
            #[derive(Debug, Clone)]
            pub struct $group {
                $($(#[doc = $meaning] pub $field: $type,)?)*
                $($($(#[$note])* pub $derived: $of,)*)?
            }

            impl $group {
                /// Reads all of them; the error has all that is refused.
                pub(super) fn read(reader: &Reader) -> Result<Self, ConfigError> {
                    let mut refused = Refused::default();
                    $($(let $field = refused.unless(reader.$read(name::$NAME, $($arg),*));)?)*
                    $($(refused.unless(reader.$check(name::$NAME, $($bound),*));)?)*
                    $($(let $derived = refused.unless(reader.derive($value));)*)?
                    let read = || {
                        Some(Self {
                            $($($field: $field?,)?)*
                            $($($derived: $derived?,)*)?
                        })
                    };
                    refused.or(read())
                }
            }
        )*
    };
}

/// A value that is one of a few words.
pub(super) trait Word: Copy + 'static {
    const WORDS: &[(&str, Self)];
}

/// Declares enums whose variants have a word each in the settings.
macro_rules! words {
    ($($(#[$about:meta])* pub enum $name:ident {
        $($(#[$note:meta])* $variant:ident = $word:literal,)*
    })*) => {$(
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$note])* $variant,)* }

        impl super::declare::Word for $name {
            const WORDS: &[(&str, Self)] = &[$(($word, Self::$variant)),*];
        }

        impl $name {
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }

            /// As in the setting.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    )*};
}

pub(super) use {settings, words};
