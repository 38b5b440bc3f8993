//! Values on their way to and from PostgreSQL.

use std::error::Error;

use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, private::BytesMut, to_sql_checked};

use crate::stmt::{Kind, Value};

type BoxError = Box<dyn Error + Sync + Send>;

/// What a parameter is declared as.
pub(super) const fn type_of(kind: Kind) -> Type {
    match kind {
        Kind::Int => Type::INT8,
        Kind::Text => Type::TEXT,
        Kind::Blob => Type::BYTEA,
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, BoxError> {
        match self {
            Self::Null(_) => return Ok(IsNull::Yes),
            Self::Int(number) => out.extend_from_slice(&number.to_be_bytes()),
            // TEXT holds everything but NUL there.
            Self::Text(text) if text.contains('\0') => {
                out.extend_from_slice(text.replace('\0', "\u{FFFD}").as_bytes());
            }
            Self::Text(text) => out.extend_from_slice(text.as_bytes()),
            Self::Blob(bytes) => out.extend_from_slice(bytes),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// A whole number of any type: what a column of ours is, a count, a sum (which is NUMERIC there) or
/// a truth.
pub(crate) struct Number(pub(crate) i64);

impl<'a> FromSql<'a> for Number {
    fn from_sql(of: &Type, raw: &'a [u8]) -> Result<Self, BoxError> {
        let number = match *of {
            Type::INT8 => i64::from_be_bytes(raw.try_into()?),
            Type::INT4 => i32::from_be_bytes(raw.try_into()?).into(),
            Type::INT2 => i16::from_be_bytes(raw.try_into()?).into(),
            Type::BOOL => i64::from(raw != [0]),
            _ => numeric(raw)?,
        };
        Ok(Self(number))
    }

    fn accepts(of: &Type) -> bool {
        matches!(
            *of,
            Type::INT8 | Type::INT4 | Type::INT2 | Type::BOOL | Type::NUMERIC
        )
    }
}

/// NUMERIC is sent as digits of base 10,000, the first of which has a weight; what is behind the
/// point is left out.
fn numeric(raw: &[u8]) -> Result<i64, BoxError> {
    const NEGATIVE: u16 = 0x4000;
    let mut words = raw
        .chunks_exact(2)
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let mut head = || words.next().ok_or("a number that is cut off");
    let (count, weight, sign, _) = (head()?, head()?, head()?, head()?);
    if !matches!(sign, 0 | NEGATIVE) {
        return Err("not a finite number".into());
    }
    let weight = i16::from_be_bytes(weight.to_be_bytes());
    let mut digits = words.take(count.into());
    let mut number = 0_i64;
    for _ in 0..=weight {
        let digit = digits.next().unwrap_or(0);
        let grown = number
            .checked_mul(10_000)
            .and_then(|number| number.checked_add(digit.into()));
        number = grown.ok_or("a number that is too large")?;
    }
    Ok(if sign == NEGATIVE { -number } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_read_as_numbers() {
        let sum = |words: &[u16]| {
            let raw: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            Number::from_sql(&Type::NUMERIC, &raw)
                .map(|Number(number)| number)
                .ok()
        };
        assert_eq!(sum(&[0, 0, 0, 0]), Some(0));
        assert_eq!(sum(&[1, 0, 0, 0, 42]), Some(42));
        assert_eq!(sum(&[1, 1, 0x4000, 0, 7]), Some(-70_000));
        assert_eq!(sum(&[2, 0, 0, 4, 3, 9_999]), Some(3));
        assert_eq!(sum(&[1, 0xFFFF, 0, 4, 9_999]), Some(0));
        assert_eq!(sum(&[1, 9, 0, 0, 1]), None);
        assert_eq!(sum(&[0, 0, 0xC000, 0]), None);
        assert_eq!(sum(&[1, 0]), None);
    }
}
