//! Enums whose variants have a fixed text, the same in plans, in Python and in messages.

/// Declares an enum with a text per variant, `ALL`, `name()` and `parse()`.
macro_rules! named_enum {
    ($(#[doc = $doc:literal])+ $enum:ident { $($(#[doc = $vdoc:literal])+ $variant:ident = $name:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $enum {
            $($(#[doc = $vdoc])+ $variant,)+
        }

        impl $enum {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The text that stands for it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// The variant with that text.
            pub fn parse(text: &str) -> Option<Self> {
                match text {
                    $($name => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

pub(crate) use named_enum;
