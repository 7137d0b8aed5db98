//! How much memory records hold.

use std::fmt;

use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use crate::text::Text;

/// What an allocation costs beside its bytes.
const ALLOCATION_LEN_BYTES: usize = 16;
/// What an entry of a map costs beside its key and value.
const MAP_ENTRY_LEN_BYTES: usize = 16;
/// What the mark of a variant takes, and what values are aligned to.
const WORD_LEN_BYTES: usize = 8;
/// Bytes that a [`Text`] holds in itself: no allocation is that short.
const INLINE_LEN_BYTES: usize = 23;

/// About how many bytes of memory a record holds beside its own.
///
/// A walk through what its `Serialize` shows: text and bytes by their length, a sequence by its elements, in memory as they
/// are and not as they are encoded. It does not see boxes as such; but where more is shown than a record has room for, the
/// rest stands somewhere else. It does not see spare capacity, or that something is shared, and it is the same for equal
/// records: nothing that depends on it depends on how a record came to be.
#[inline]
pub(crate) fn outside_len<T: Serialize>(record: &T) -> usize {
    if !std::mem::needs_drop::<T>() {
        return 0;
    }
    let mut size = Size { bytes: 0, in_place_bytes: 0, within: false };
    // To keep a record does not encode it: one that cannot be encoded counts as far as it can.
    record.serialize(&mut size).unwrap_or_default();
    size.bytes + size.in_place_bytes.saturating_sub(size_of::<T>())
}

/// Adds up what it is shown.
struct Size {
    bytes: usize,
    /// What seems to stand in the record itself.
    in_place_bytes: usize,
    /// Whether what is shown stands in memory outside the record, and counts itself.
    within: bool,
}

impl Size {
    #[inline]
    fn place(&mut self, len_bytes: usize) {
        *(if self.within { &mut self.bytes } else { &mut self.in_place_bytes }) += len_bytes;
    }

    /// The mark of a variant, which may take no place of its own.
    #[inline]
    fn mark(&mut self) {
        if self.within {
            self.bytes += WORD_LEN_BYTES;
        }
    }

    #[inline]
    fn allocation(&mut self, len_bytes: usize) {
        if len_bytes > 0 {
            self.bytes += len_bytes + ALLOCATION_LEN_BYTES;
        }
    }

    /// An element of a list. How long it is cannot be asked: what is shown may be a reference to it.
    #[inline]
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> fmt::Result {
        let (before, within) = (self.bytes, std::mem::replace(&mut self.within, true));
        value.serialize(&mut *self)?;
        self.within = within;
        let len_bytes = self.bytes - before;
        if len_bytes > WORD_LEN_BYTES {
            self.bytes = before + len_bytes.next_multiple_of(WORD_LEN_BYTES);
        }
        Ok(())
    }
}

macro_rules! in_its_place {
    ($($name:ident: $type:ty),*) => {$(
        #[inline]
        fn $name(self, _: $type) -> fmt::Result {
            self.place(size_of::<$type>());
            Ok(())
        }
    )*};
}

impl Serializer for &mut Size {
    type Ok = ();
    type Error = fmt::Error;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    in_its_place!(
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_i128: i128, serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_u128: u128, serialize_f32: f32, serialize_f64: f64, serialize_char: char
    );

    #[inline]
    fn serialize_unit_struct(self, _: &'static str) -> fmt::Result {
        Ok(())
    }

    #[inline]
    fn serialize_str(self, text: &str) -> fmt::Result {
        self.place(size_of::<String>());
        self.allocation(text.len());
        Ok(())
    }

    #[inline]
    fn serialize_bytes(self, bytes: &[u8]) -> fmt::Result {
        self.place(if self.within { size_of::<Text>() } else { size_of::<Vec<u8>>() });
        if bytes.len() > INLINE_LEN_BYTES {
            self.allocation(bytes.len());
        }
        Ok(())
    }

    #[inline]
    fn serialize_none(self) -> fmt::Result {
        self.mark();
        Ok(())
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> fmt::Result {
        value.serialize(self)
    }

    #[inline]
    fn serialize_unit(self) -> fmt::Result {
        Ok(())
    }

    #[inline]
    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> fmt::Result {
        self.mark();
        Ok(())
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> fmt::Result {
        value.serialize(self)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> fmt::Result {
        self.mark();
        value.serialize(self)
    }

    #[inline]
    fn serialize_seq(self, _: Option<usize>) -> Result<Self, fmt::Error> {
        self.place(size_of::<Vec<u8>>());
        self.bytes += ALLOCATION_LEN_BYTES;
        Ok(self)
    }

    #[inline]
    fn serialize_tuple(self, _: usize) -> Result<Self, fmt::Error> {
        Ok(self)
    }

    #[inline]
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, fmt::Error> {
        Ok(self)
    }

    #[inline]
    fn serialize_tuple_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Self, fmt::Error> {
        Ok(self)
    }

    #[inline]
    fn serialize_map(self, _: Option<usize>) -> Result<Self, fmt::Error> {
        self.place(size_of::<Vec<u8>>() * if self.within { 2 } else { 1 });
        self.bytes += ALLOCATION_LEN_BYTES;
        Ok(self)
    }

    #[inline]
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, fmt::Error> {
        Ok(self)
    }

    #[inline]
    fn serialize_struct_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Self, fmt::Error> {
        Ok(self)
    }

    /// As postcard: some types show something else to people.
    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }
}

impl SerializeSeq for &mut Size {
    type Ok = ();
    type Error = fmt::Error;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> fmt::Result {
        self.element(value)
    }

    #[inline]
    fn end(self) -> fmt::Result {
        Ok(())
    }
}

impl SerializeMap for &mut Size {
    type Ok = ();
    type Error = fmt::Error;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> fmt::Result {
        self.bytes += MAP_ENTRY_LEN_BYTES;
        self.element(key)
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> fmt::Result {
        self.element(value)
    }

    #[inline]
    fn end(self) -> fmt::Result {
        Ok(())
    }
}

macro_rules! in_place {
    ($($trait:ident :: $name:ident),*) => {$(
        /// What stands in the record itself.
        impl $trait for &mut Size {
            type Ok = ();
            type Error = fmt::Error;

            #[inline]
            fn $name<T: Serialize + ?Sized>(&mut self, value: &T) -> fmt::Result {
                value.serialize(&mut **self)
            }

            #[inline]
            fn end(self) -> fmt::Result {
                Ok(())
            }
        }
    )*};
}

macro_rules! fields_in_place {
    ($($trait:ident),*) => {$(
        /// What stands in the record itself.
        impl $trait for &mut Size {
            type Ok = ();
            type Error = fmt::Error;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, value: &T) -> fmt::Result {
                value.serialize(&mut **self)
            }

            #[inline]
            fn end(self) -> fmt::Result {
                Ok(())
            }
        }
    )*};
}

in_place!(
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);
fields_in_place!(SerializeStruct, SerializeStructVariant);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Serialize;

    use super::*;

    #[test]
    fn what_a_record_holds_beside_itself_is_counted() {
        assert_eq!(outside_len(&(1_u64, 'x', [2_u32; 9])), 0, "it holds nothing");
        assert_eq!(outside_len(&"x".repeat(1000)), 1016);
        assert_eq!(outside_len(&String::new()), 0);
        assert_eq!(outside_len(&(7_u8, vec![1_u8; 1000])), 1016);
        assert_eq!(outside_len(&Some(vec![1_u64; 1000])), 8016);
        assert_eq!(outside_len(&Text::from("short")), 0, "it stands in the text itself");
        assert_eq!(outside_len(&Text::from("x".repeat(100))), 116);
        assert_eq!(outside_len(&vec!["word".to_owned(); 10]), 16 + 10 * (size_of::<String>() + 24));
        assert_eq!(outside_len(&BTreeMap::from([(1_u64, 2_u32)])), 16 + 16 + 12);
        assert_eq!(outside_len(&vec![(1_u64, 2_u8); 10]), 16 + 10 * size_of::<(u64, u8)>());
        assert_eq!(outside_len(&[const { Vec::<u8>::new() }; 3]), 3 * 16);
    }

    #[test]
    fn what_stands_in_boxes_is_counted() {
        #[derive(Serialize)]
        enum Expr {
            Number(u64),
            Add(Box<Expr>, Box<Expr>),
        }
        let sum = (0..1000).fold(Expr::Number(0), |sum, n| Expr::Add(Box::new(sum), Box::new(Expr::Number(n))));
        assert!(outside_len(&sum) >= 7_000, "{}", outside_len(&sum));
        assert_eq!(outside_len(&Some(Box::new([[7_u64; 32]; 4]))), 32 * 4 * 8 - 8);
        assert_eq!(outside_len(&(Some("x".to_owned()), None::<String>, 1_u8)), 17, "all of it is in its place");
    }
}
