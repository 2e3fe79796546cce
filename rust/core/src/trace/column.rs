//! One column of a recording: a plain array, owned while it is built and memory-mapped when it comes from a file.
//!
//! Contract: a [`Column`] reads as a slice, whatever holds it; elements are little-endian integers without padding. A
//! mapped column is copied only when somebody writes to it. Nothing here knows what a column means.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use memmap2::Mmap;
use serde::{Deserialize, Serialize};

/// The type of a column's elements, as it is named in a file's column directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// Unsigned, 1 byte.
    U8,
    /// Unsigned, 2 bytes.
    U16,
    /// Unsigned, 4 bytes.
    U32,
    /// Unsigned, 8 bytes.
    U64,
    /// Signed, 4 bytes.
    I32,
    /// Signed, 8 bytes.
    I64,
}

impl Dtype {
    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 => 2,
            Self::U32 | Self::I32 => 4,
            Self::U64 | Self::I64 => 8,
        }
    }
}

/// A column borrowed with its type, for those that do not know the type beforehand (files, the binding).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ColumnView<'a> {
    /// Unsigned bytes.
    U8(&'a [u8]),
    /// Unsigned 16-bit numbers.
    U16(&'a [u16]),
    /// Unsigned 32-bit numbers.
    U32(&'a [u32]),
    /// Unsigned 64-bit numbers.
    U64(&'a [u64]),
    /// Signed 32-bit numbers.
    I32(&'a [i32]),
    /// Signed 64-bit numbers.
    I64(&'a [i64]),
}

impl<'a> ColumnView<'a> {
    /// The type of the elements.
    pub const fn dtype(self) -> Dtype {
        match self {
            Self::U8(_) => Dtype::U8,
            Self::U16(_) => Dtype::U16,
            Self::U32(_) => Dtype::U32,
            Self::U64(_) => Dtype::U64,
            Self::I32(_) => Dtype::I32,
            Self::I64(_) => Dtype::I64,
        }
    }

    /// The elements as they lie in memory and in files.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Self::U8(values) => values,
            Self::U16(values) => bytes_of(values),
            Self::U32(values) => bytes_of(values),
            Self::U64(values) => bytes_of(values),
            Self::I32(values) => bytes_of(values),
            Self::I64(values) => bytes_of(values),
        }
    }
}

mod sealed {
    pub trait Sealed {}
}

/// An integer that a column can hold.
///
/// # Safety
/// Every bit pattern of the type is a value, and it has no padding: columns are read straight from files.
pub unsafe trait Scalar: Copy + PartialEq + fmt::Debug + sealed::Sealed + Send + Sync + 'static {
    /// The type's name in files.
    const DTYPE: Dtype;
    /// A slice of it with its type.
    fn view(values: &[Self]) -> ColumnView<'_>;
}

macro_rules! scalar {
    ($($ty:ty => $variant:ident),+) => {$(
        impl sealed::Sealed for $ty {}
        // SAFETY: a primitive integer: no padding, every bit pattern is a value.
        unsafe impl Scalar for $ty {
            const DTYPE: Dtype = Dtype::$variant;
            fn view(values: &[Self]) -> ColumnView<'_> {
                ColumnView::$variant(values)
            }
        }
    )+};
}
scalar!(u8 => U8, u16 => U16, u32 => U32, u64 => U64, i32 => I32, i64 => I64);

fn bytes_of<T: Scalar>(values: &[T]) -> &[u8] {
    // SAFETY: a `Scalar` has no padding, so that all its bytes are initialised; a byte needs no alignment.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), std::mem::size_of_val(values)) }
}

/// An array of numbers, owned or mapped. Reads as a slice.
#[derive(Clone)]
pub struct Column<T>(Store<T>);

#[derive(Clone)]
enum Store<T> {
    Owned(Vec<T>),
    Mapped { map: Arc<Mmap>, offset: usize, len: usize },
}

impl<T: Scalar> Column<T> {
    /// The `len` elements at byte `offset` of a mapped file; `None` if they do not lie within it or are not aligned.
    pub(super) fn mapped(map: &Arc<Mmap>, offset: usize, len: usize) -> Option<Self> {
        let end = len.checked_mul(size_of::<T>())?.checked_add(offset)?;
        let aligned = (map.as_ptr() as usize).wrapping_add(offset).is_multiple_of(align_of::<T>());
        (end <= map.len() && aligned).then(|| Self(Store::Mapped { map: Arc::clone(map), offset, len }))
    }

    /// The elements as a vector that can grow; a mapped column is copied first.
    pub fn to_mut(&mut self) -> &mut Vec<T> {
        if let Store::Mapped { .. } = self.0 {
            self.0 = Store::Owned(self.to_vec());
        }
        match &mut self.0 {
            Store::Owned(values) => values,
            Store::Mapped { .. } => unreachable!("replaced by an owned store above"),
        }
    }
}

impl<T: Scalar> Deref for Column<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match &self.0 {
            Store::Owned(values) => values,
            // SAFETY: `mapped` checked bounds and alignment; a `Scalar` accepts every bit pattern; the map lives as
            // long as the store. A file that another process truncates meanwhile is outside any program's reach.
            Store::Mapped { map, offset, len } => unsafe {
                std::slice::from_raw_parts(map.as_ptr().add(*offset).cast(), *len)
            },
        }
    }
}

impl<T> Default for Column<T> {
    fn default() -> Self {
        Self(Store::Owned(Vec::new()))
    }
}

impl<T> From<Vec<T>> for Column<T> {
    fn from(values: Vec<T>) -> Self {
        Self(Store::Owned(values))
    }
}

impl<T: Scalar> PartialEq for Column<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Scalar> fmt::Debug for Column<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Whatever can give a column by name (a file's directory).
pub(super) trait ColumnSource {
    fn column<T: Scalar>(&self, name: &str) -> crate::error::Result<Column<T>>;
}

/// Declares a row and the structure of arrays that holds many of them, so that names and types stand in one place.
macro_rules! columns {
    ($(#[$columns_meta:meta])* $columns:ident of $(#[$row_meta:meta])* $row:ident {
        $($(#[$field_meta:meta])* $field:ident: $ty:ty,)+
    }) => {
        $(#[$row_meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct $row {
            $($(#[$field_meta])* pub $field: $ty,)+
        }

        $(#[$columns_meta])*
        #[derive(Clone, Default, PartialEq, Debug)]
        pub struct $columns {
            $($(#[$field_meta])* pub $field: $crate::trace::column::Column<$ty>,)+
        }

        impl $columns {
            /// The columns' names, in the order of files.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($field)),+];

            /// Rows.
            pub fn len(&self) -> usize {
                self.time_ns.len()
            }

            /// Whether there is no row.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// Adds a row and tells its index.
            pub fn push(&mut self, row: $row) -> usize {
                $(self.$field.to_mut().push(row.$field);)+
                self.len() - 1
            }

            /// Row `index`, gathered from the columns; panics beyond the end, as a slice does.
            pub fn get(&self, index: usize) -> $row {
                $row { $($field: self.$field[index],)+ }
            }

            /// The column of that name with its type.
            pub fn view(&self, name: &str) -> Option<$crate::trace::column::ColumnView<'_>> {
                match name {
                    $(stringify!($field) => Some($crate::trace::column::Scalar::view(&self.$field)),)+
                    _ => None,
                }
            }

            pub(super) fn load(source: &impl $crate::trace::column::ColumnSource) -> $crate::error::Result<Self> {
                Ok(Self { $($field: source.column(stringify!($field))?,)+ })
            }
        }
    };
}
pub(super) use columns;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_gives_little_endian_bytes() {
        assert_eq!(u16::view(&[0x0102, 3]).bytes(), [2, 1, 3, 0]);
        assert_eq!(i64::view(&[-1]).bytes(), [255; 8]);
        assert_eq!(u32::view(&[7]).dtype().bytes(), 4);
    }

    #[test]
    fn a_mapped_column_needs_bounds_and_alignment() {
        let mut map = memmap2::MmapMut::map_anon(64).unwrap();
        map[8] = 5;
        let map = Arc::new(map.make_read_only().unwrap());
        let mut column = Column::<u64>::mapped(&map, 8, 2).unwrap();
        assert_eq!(*column, [5, 0]);
        column.to_mut().push(9);
        assert_eq!(*column, [5, 0, 9]);
        assert!(Column::<u64>::mapped(&map, 4, 1).is_none());
        assert!(Column::<u64>::mapped(&map, 8, 8).is_none());
        assert!(Column::<u64>::mapped(&map, 8, usize::MAX).is_none());
    }
}
