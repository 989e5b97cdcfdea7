//! Identifiers as callers send them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Characters an id may have.
pub const ID_CHARS_MAX: usize = 255;

/// A wallet's id: 1–255 visible characters, kept as sent. Cheap to clone.
///
/// What may be opened is narrower than what may be asked for: a wallet that an earlier release
/// opened stays within reach, whatever its id.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WalletId(Arc<str>);

/// Whose wallets: every row and key belongs to one tenant. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

/// A wallet among those of all tenants: no two have the same.
pub type WalletKey = (TenantId, WalletId);

impl WalletId {
    /// The id of a wallet that may exist, if it is 1–255 characters that were ever taken.
    pub fn parse(text: &str) -> Option<Self> {
        let chars = text.chars().count();
        let valid = (1..=ID_CHARS_MAX).contains(&chars) && text.chars().all(is_taken);
        valid.then(|| Self(text.into()))
    }

    /// The id of a wallet to be opened, if clients can ask for it and people can see all of it.
    pub fn parse_new(text: &str) -> Option<Self> {
        Self::parse(text).filter(|_| is_addressable(text) && text.chars().all(is_visible))
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

/// Whether the text can stand as one segment of a path. Clients and proxies take `.` and `..` out of
/// a path before they send it, escaped ones too (RFC 3986, 5.2.4; WHATWG URL).
pub fn is_addressable(text: &str) -> bool {
    !matches!(text, "." | "..")
}

/// Whether the character leaves ink, as far as that can be told without a font: none of Unicode's
/// `Default_Ignorable_Code_Point`s, no Braille blank, and none that is no character.
pub fn is_visible(c: char) -> bool {
    let ignorable = matches!(c,
        '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}');
    let blank = c == '\u{2800}';
    let nothing = matches!(c, '\u{fdd0}'..='\u{fdef}') || u32::from(c) & 0xfffe == 0xfffe;
    is_taken(c) && !ignorable && !blank && !nothing
}

/// Neither white space nor a control, nor one of the format characters that reorder or hide text.
fn is_taken(c: char) -> bool {
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
        impl<'de> Deserialize<'de> for $id {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(|text| Self(text.into()))
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

    #[test]
    fn what_no_client_can_ask_for_and_nobody_can_see_is_not_opened_but_found() {
        for id in
            [".", "..", "\u{3164}", "a\u{115f}", "a\u{fe0f}", "\u{2800}", "a\u{e0100}", "a\u{ffff}"]
        {
            assert_eq!(WalletId::parse_new(id), None, "{id:?}");
            assert!(WalletId::parse(id).is_some(), "{id:?}");
        }
        let (composed, decomposed) = ("\u{e9}", "e\u{301}");
        for id in ["...", "a.", ".a", "%2e", "a/../b", "\\", "a?b#c", composed, decomposed] {
            assert_eq!(WalletId::parse_new(id).as_ref().map(WalletId::as_str), Some(id));
        }
    }
}
