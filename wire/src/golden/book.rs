//! The book of samples.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{decode, encode};

/// A type that travels, as far as the tests must know it.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    /// Decodes bytes; what decodes must come out the same when it is encoded and decoded again. Whether it decodes.
    pub(super) survives: fn(&[u8]) -> bool,
}

/// One value of a type that travels.
pub(super) struct Sample {
    /// The module, the type, and for enums the variant.
    pub(super) name: String,
    /// What it is encoded as.
    pub(super) bytes: Vec<u8>,
    /// Its type.
    pub(super) kind: Kind,
}

/// Samples of every type that travels.
#[derive(Default)]
pub(super) struct Book {
    pub(super) samples: Vec<Sample>,
}

impl Book {
    /// Adds a sample, which must decode to itself.
    pub(super) fn add<M>(&mut self, name: &str, value: &M)
    where
        M: Serialize + DeserializeOwned + PartialEq + Debug,
    {
        let bytes = encode(value).unwrap().to_vec();
        assert_eq!(&decode::<M>(&bytes).unwrap(), value, "{name} decodes to itself");
        assert!(self.samples.iter().all(|sample| sample.name != name), "{name} is there once");
        self.samples.push(Sample { name: name.to_owned(), bytes, kind: Kind { survives: survives::<M> } });
    }
}

fn survives<M: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> bool {
    let Ok(message) = decode::<M>(bytes) else { return false };
    let again = encode(&message).unwrap();
    assert_eq!(decode::<M>(&again).unwrap(), message, "what decodes survives");
    true
}

/// Adds a sample of a struct.
macro_rules! sample {
    ($book:ident, $module:literal, $type:ident, $value:expr) => {{
        let value: $type = $value;
        $book.add(concat!($module, "::", stringify!($type)), &value);
    }};
}

/// Adds a sample of each variant of an enum. A variant without one does not compile.
macro_rules! variants {
    ($book:ident, $module:literal, $type:ident { $($variant:ident => $value:expr,)+ }) => {{
        let _all_are_here = |value: &$type| match value {
            $($type::$variant { .. } => ()),+
        };
        $(
            let value: $type = $value;
            assert!(matches!(value, $type::$variant { .. }), "a sample is of its own variant");
            $book.add(concat!($module, "::", stringify!($type), "::", stringify!($variant)), &value);
        )+
    }};
}

pub(super) use {sample, variants};
