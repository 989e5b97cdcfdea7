//! Identifiers as callers send them.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// Characters an id may have.
pub const ID_CHARS_MAX: usize = 255;

/// A wallet's id: 1–255 visible characters, kept as sent. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WalletId(Arc<str>);

/// Whose wallets: every row and key belongs to one tenant. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

impl WalletId {
    /// The id, if it is 1–255 visible characters.
    pub fn parse(text: &str) -> Option<Self> {
        let chars = text.chars().count();
        let valid = (1..=ID_CHARS_MAX).contains(&chars) && text.chars().all(is_visible);
        valid.then(|| Self(text.into()))
    }

    /// An id read back from where only valid ids are written.
    pub fn stored(text: &str) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TenantId {
    /// The one tenant of a service without authentication.
    pub fn default_tenant() -> Self {
        Self("default".into())
    }

    pub fn stored(text: &str) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Neither white space nor a control, nor one of the format characters that reorder or hide text.
fn is_visible(c: char) -> bool {
    let hidden = matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    !c.is_whitespace() && !c.is_control() && !hidden
}

macro_rules! as_text {
    ($($id:ty),*) => {$(
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
        impl Serialize for $id {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    )*};
}
as_text!(WalletId, TenantId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visible_characters_of_any_script_are_kept_as_sent() {
        for id in ["w-1", "../../etc", "Ünïcødé", "财布", "a';DROP_TABLE--", &"x".repeat(255)]
        {
            assert_eq!(WalletId::parse(id).as_ref().map(WalletId::as_str), Some(id));
        }
    }

    #[test]
    fn empty_long_and_invisible_ids_are_refused() {
        for id in ["", " ", "a b", "a\0", "a\n", "a\u{202e}b", "\u{200b}", &"x".repeat(256)] {
            assert_eq!(WalletId::parse(id), None, "{id:?}");
        }
    }
}
