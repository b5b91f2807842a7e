//! Extended attributes, as a backup stream holds them (`FILE_FULL_EA_INFORMATION`, MS-FSCC 2.4.16).

use super::{Malformed, u16_at, u32_at};

/// Length of an entry without name and value, in bytes.
const HEADER: usize = 8;

/// Entries begin at multiples of this, in bytes.
const ALIGN: usize = 4;

/// An extended attribute. Its flags are not kept: no tar has room for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ea {
    /// The name: ASCII, in upper case as NTFS keeps it.
    pub name: String,
    /// The value.
    pub value: Vec<u8>,
}

/// Parses a whole list, which may be empty.
///
/// # Errors
/// Fails where an entry is cut short, leads backwards, or has a name that NTFS forbids.
pub fn parse(bytes: &[u8]) -> Result<Vec<Ea>, Malformed> {
    let short = || Malformed::new("extended attributes that are cut short");
    let mut list = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let next = u32_at(rest, 0).ok_or_else(short)? as usize;
        let name_len = usize::from(*rest.get(5).ok_or_else(short)?);
        let value_len = usize::from(u16_at(rest, 6).ok_or_else(short)?);
        let value_at = HEADER + name_len + 1;
        let end = value_at + value_len;
        let name = rest.get(HEADER..value_at - 1).ok_or_else(short)?;
        let value = rest.get(value_at..end).ok_or_else(short)?;
        list.push(Ea { name: check_name(name)?.to_owned(), value: value.to_vec() });
        if next == 0 {
            break;
        }
        if next < end {
            return Err(Malformed::new("extended attributes that overlap"));
        }
        rest = rest.get(next..).ok_or_else(short)?;
    }
    Ok(list)
}

/// The list as a stream holds it.
///
/// # Errors
/// Fails where a name or a value is too long, or a name is one that NTFS forbids.
pub fn encode(list: &[Ea]) -> Result<Vec<u8>, Malformed> {
    let mut out = Vec::new();
    for (index, ea) in list.iter().enumerate() {
        check_name(ea.name.as_bytes())?;
        let too_long = |_| Malformed::new("an extended attribute that is too long");
        let name_len = u8::try_from(ea.name.len()).map_err(too_long)?;
        let value_len = u16::try_from(ea.value.len()).map_err(too_long)?;
        let length = HEADER + ea.name.len() + 1 + ea.value.len();
        let padded = length.next_multiple_of(ALIGN);
        let next = if index + 1 == list.len() { 0 } else { padded };
        out.extend_from_slice(&(next as u32).to_le_bytes());
        out.extend_from_slice(&[0, name_len]);
        out.extend_from_slice(&value_len.to_le_bytes());
        out.extend_from_slice(ea.name.as_bytes());
        out.push(0);
        out.extend_from_slice(&ea.value);
        out.resize(out.len() + padded - length, 0);
    }
    Ok(out)
}

/// A name that NTFS takes: no control characters, and none of `"*+,/:;<=>?[\]|`.
fn check_name(name: &[u8]) -> Result<&str, Malformed> {
    let is_legal = |byte: &u8| (0x20..0x7f).contains(byte) && !b"\"*+,/:;<=>?[\\]|".contains(byte);
    match str::from_utf8(name) {
        Ok(text) if !text.is_empty() && name.iter().all(is_legal) => Ok(text),
        _ => Err(Malformed::new("an extended attribute without a proper name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ea(name: &str, value: &[u8]) -> Ea {
        Ea { name: name.into(), value: value.into() }
    }

    #[test]
    fn entries_are_padded_to_four_bytes_and_the_last_leads_nowhere() {
        let list = [ea("A", b"xyz"), ea("LONGER", b""), ea("B", &[7; 300])];
        let bytes = encode(&list).unwrap();
        assert_eq!(&bytes[..16], b"\x10\0\0\0\0\x01\x03\0A\0xyz\0\0\0");
        assert_eq!(parse(&bytes).unwrap(), list);
        assert_eq!(parse(&bytes[16..]).unwrap(), list[1..]);
        assert_eq!(parse(&[]).unwrap(), []);
        assert_eq!(encode(&[]).unwrap(), b"");
    }

    #[test]
    fn entries_that_make_no_sense_are_errors() {
        let good = encode(&[ea("AB", b"x"), ea("C", b"y")]).unwrap();
        for (at, byte) in
            [(0, 1), (0, 11), (0, 200), (3, 255), (5, 0), (5, 255), (7, 255), (8, b'=')]
        {
            let mut bytes = good.clone();
            bytes[at] = byte;
            assert!(parse(&bytes).is_err(), "{at} {byte}");
        }
        for length in 1..good.len() - 4 {
            assert!(parse(&good[..length]).is_err() || length == 12, "{length}");
        }
        assert!(encode(&[ea("", b"")]).is_err() && encode(&[ea("a=b", b"")]).is_err());
        assert!(encode(&[ea("A", &[0; 65_536])]).is_err());
    }
}
