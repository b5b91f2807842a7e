//! Security descriptors as text (SDDL, MS-DTYP 2.5.1), which older tars have in the place of the
//! bytes: parsed into the self-relative form of a backup stream (MS-DTYP 2.4.6).

use super::Malformed;

/// Length of a descriptor without owner, group and lists, in bytes.
const HEADER: usize = 20;

/// Where in the header the offsets of owner, group, SACL and DACL are.
const OFFSETS: [usize; 4] = [4, 8, 12, 16];

/// `SE_SELF_RELATIVE`.
const SELF_RELATIVE: u16 = 0x8000;

/// Bits of the control word for a list: present, protected, inheritance required, inherited.
const DACL_BITS: [u16; 4] = [0x0004, 0x1000, 0x0100, 0x0400];
const SACL_BITS: [u16; 4] = [0x0010, 0x2000, 0x0200, 0x0800];

/// Most parts that the number of an account has after its authority.
const SUB_AUTHORITIES_MAX: usize = 15;

/// Types of entries that hold a mask and an account.
const TYPES: [(&str, u8); 5] = [("A", 0), ("D", 1), ("AU", 2), ("AL", 3), ("ML", 0x11)];

/// Flags of entries.
const FLAGS: [(&str, u32); 7] =
    [("OI", 1), ("CI", 2), ("NP", 4), ("IO", 8), ("ID", 0x10), ("SA", 0x40), ("FA", 0x80)];

/// Rights, alone or together.
const RIGHTS: [(&str, u32); 31] = [
    ("GA", 0x1000_0000),
    ("GX", 0x2000_0000),
    ("GW", 0x4000_0000),
    ("GR", 0x8000_0000),
    ("SD", 0x1_0000),
    ("RC", 0x2_0000),
    ("WD", 0x4_0000),
    ("WO", 0x8_0000),
    ("CC", 0x1),
    ("DC", 0x2),
    ("LC", 0x4),
    ("SW", 0x8),
    ("RP", 0x10),
    ("WP", 0x20),
    ("DT", 0x40),
    ("LO", 0x80),
    ("CR", 0x100),
    ("FA", 0x1f_01ff),
    ("FR", 0x12_0089),
    ("FW", 0x12_0116),
    ("FX", 0x12_00a0),
    ("KA", 0xf_003f),
    ("KR", 0x2_0019),
    ("KW", 0x2_0006),
    ("KX", 0x2_0019),
    ("NW", 0x1),
    ("NR", 0x2),
    ("NX", 0x4),
    ("AS", 0x100_0000),
    ("MA", 0x200_0000),
    ("SY", 0x10_0000),
];

/// Accounts that are the same on every computer, as authority and what follows.
const ACCOUNTS: [(&str, u8, &[u32]); 47] = [
    ("AA", 5, &[32, 579]),
    ("AC", 15, &[2, 1]),
    ("AN", 5, &[7]),
    ("AO", 5, &[32, 548]),
    ("AU", 5, &[11]),
    ("BA", 5, &[32, 544]),
    ("BG", 5, &[32, 546]),
    ("BO", 5, &[32, 551]),
    ("BU", 5, &[32, 545]),
    ("CD", 5, &[32, 574]),
    ("CG", 3, &[1]),
    ("CO", 3, &[0]),
    ("CY", 5, &[32, 569]),
    ("ED", 5, &[9]),
    ("ER", 5, &[32, 573]),
    ("ES", 5, &[32, 576]),
    ("HA", 5, &[32, 578]),
    ("HI", 16, &[12288]),
    ("HO", 5, &[32, 578]),
    ("IS", 5, &[32, 568]),
    ("IU", 5, &[4]),
    ("LS", 5, &[19]),
    ("LU", 5, &[32, 559]),
    ("LW", 16, &[4096]),
    ("ME", 16, &[8192]),
    ("MP", 16, &[8448]),
    ("MS", 5, &[32, 577]),
    ("MU", 5, &[32, 558]),
    ("NO", 5, &[32, 556]),
    ("NS", 5, &[20]),
    ("NU", 5, &[2]),
    ("OW", 3, &[4]),
    ("PO", 5, &[32, 550]),
    ("PS", 5, &[10]),
    ("PU", 5, &[32, 547]),
    ("RA", 5, &[32, 575]),
    ("RC", 5, &[12]),
    ("RD", 5, &[32, 555]),
    ("RE", 5, &[32, 552]),
    ("RM", 5, &[32, 580]),
    ("RU", 5, &[32, 554]),
    ("SI", 16, &[16384]),
    ("SO", 5, &[32, 549]),
    ("SU", 5, &[6]),
    ("SY", 5, &[18]),
    ("WD", 1, &[0]),
    ("WR", 5, &[33]),
];

/// The descriptor that `text` describes. Accounts of a domain have to be given by number.
///
/// # Errors
/// Fails where it is no SDDL, or has conditional or object entries.
pub fn parse(text: &str) -> Result<Vec<u8>, Malformed> {
    let (mut owner, mut group, mut sacl, mut dacl) = (None, None, None, None);
    let mut control = SELF_RELATIVE;
    let mut rest = text;
    while !rest.is_empty() {
        let (tag, after) = rest.split_once(':').ok_or_else(|| no("no part of a descriptor"))?;
        let end = match after.find(':') {
            Some(colon) => colon.checked_sub(1).ok_or_else(|| no("an empty part"))?,
            None => after.len(),
        };
        let part = after.get(..end).ok_or_else(|| no("not ASCII"))?;
        let bytes = match tag {
            "O" | "G" => account(part)?,
            "D" => list(part, DACL_BITS, &mut control)?,
            "S" => list(part, SACL_BITS, &mut control)?,
            _ => return Err(no("an unknown part")),
        };
        let slot = match tag {
            "O" => &mut owner,
            "G" => &mut group,
            "D" => &mut dacl,
            _ => &mut sacl,
        };
        if slot.replace(bytes).is_some() {
            return Err(no("a part that is there twice"));
        }
        rest = after.get(end..).unwrap_or_default();
    }
    let mut out = vec![0; HEADER];
    out[0] = 1; // revision
    out[2..4].copy_from_slice(&control.to_le_bytes());
    let [owner_at, group_at, sacl_at, dacl_at] = OFFSETS;
    for (place, part) in [(sacl_at, sacl), (dacl_at, dacl), (owner_at, owner), (group_at, group)] {
        let Some(part) = part else { continue };
        let offset = out.len() as u32;
        out[place..place + 4].copy_from_slice(&offset.to_le_bytes());
        out.extend(part);
    }
    Ok(out)
}

fn no(why: &'static str) -> Malformed {
    Malformed::new(format!("a security descriptor that can't be read: {why}"))
}

/// A list of entries with the flags before it.
fn list(text: &str, bits: [u16; 4], control: &mut u16) -> Result<Vec<u8>, Malformed> {
    let (mut flags, entries) = text.split_at(text.find('(').unwrap_or(text.len()));
    let [present, protected, required, inherited] = bits;
    *control |= present;
    while !flags.is_empty() {
        let (name, bit) = [("P", protected), ("AR", required), ("AI", inherited)]
            .into_iter()
            .find(|(name, _)| flags.starts_with(name))
            .ok_or_else(|| no("an unknown flag of a list"))?;
        *control |= bit;
        flags = flags.get(name.len()..).unwrap_or_default();
    }
    let mut body = Vec::new();
    let mut count: u16 = 0;
    let mut rest = entries;
    while let Some(entry) = rest.strip_prefix('(') {
        let (fields, after) = entry.split_once(')').ok_or_else(|| no("an entry without an end"))?;
        body.extend(self::entry(fields)?);
        count = count.checked_add(1).ok_or_else(|| no("too many entries"))?;
        rest = after;
    }
    if !rest.is_empty() {
        return Err(no("something between entries"));
    }
    let size = u16::try_from(body.len() + 8).map_err(|_| no("a list that is too long"))?;
    let mut out = vec![2, 0]; // revision
    for number in [size, count, 0] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend(body);
    Ok(out)
}

/// `TYPE;FLAGS;RIGHTS;;;ACCOUNT`.
fn entry(text: &str) -> Result<Vec<u8>, Malformed> {
    let fields: Vec<&str> = text.split(';').collect();
    let &[kind, flags, rights, "", "", who] = &fields[..] else {
        return Err(no("an entry of an unknown form"));
    };
    let kind = TYPES.iter().find(|(name, _)| *name == kind);
    let (_, kind) = kind.ok_or_else(|| no("an entry of an unknown type"))?;
    let flags = u8::try_from(pairs(flags, &FLAGS)?).map_err(|_| no("an unknown flag"))?;
    let mask = match number(rights) {
        Some(number) => u32::try_from(number).map_err(|_| no("rights that are no number"))?,
        None => pairs(rights, &RIGHTS)?,
    };
    let account = account(who)?;
    let mut out = vec![*kind, flags];
    out.extend_from_slice(&((account.len() + 8) as u16).to_le_bytes());
    out.extend_from_slice(&mask.to_le_bytes());
    out.extend(account);
    Ok(out)
}

/// Names of two letters, one after the other, as the bits that they stand for.
fn pairs(text: &str, names: &[(&str, u32)]) -> Result<u32, Malformed> {
    let mut bits = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) = rest.split_at_checked(2).ok_or_else(|| no("half a name"))?;
        let found = names.iter().find(|(known, _)| *known == name);
        bits |= found.ok_or_else(|| no("an unknown name"))?.1;
        rest = after;
    }
    Ok(bits)
}

/// A decimal or hexadecimal number.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `S-1-AUTHORITY-NUMBER...`, or one of the two letters.
fn account(text: &str) -> Result<Vec<u8>, Malformed> {
    if let Some((_, authority, numbers)) = ACCOUNTS.iter().find(|(name, ..)| *name == text) {
        return Ok(account_of((*authority).into(), numbers));
    }
    let unknown = || no("an unknown account");
    let mut numbers = text.strip_prefix("S-1-").ok_or_else(unknown)?.split('-').map(number);
    let authority = numbers.next().flatten().filter(|number| number >> 48 == 0);
    let authority = authority.ok_or_else(unknown)?;
    let numbers: Option<Vec<u32>> =
        numbers.map(|number| number.and_then(|number| u32::try_from(number).ok())).collect();
    let numbers = numbers.filter(|numbers| numbers.len() <= SUB_AUTHORITIES_MAX);
    Ok(account_of(authority, &numbers.ok_or_else(unknown)?))
}

fn account_of(authority: u64, numbers: &[u32]) -> Vec<u8> {
    let mut out = vec![1, numbers.len() as u8]; // revision
    out.extend_from_slice(&authority.to_be_bytes()[2..]);
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_laid_out_as_windows_lays_it_out() {
        let bytes = parse("O:BAG:SYD:PAI(A;OICI;FA;;;SY)(D;;0x1200a9;;;S-1-5-21-1-2-3)").unwrap();
        let system = b"\x01\x01\0\0\0\0\0\x05\x12\0\0\0";
        let admins = b"\x01\x02\0\0\0\0\0\x05\x20\0\0\0\x20\x02\0\0";
        let denied = b"\x01\x04\0\0\0\0\0\x05\x15\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0";
        let expected = [
            &b"\x01\0\x04\x94"[..],
            &[80, 0, 0, 0, 96, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0],
            b"\x02\0\x3c\0\x02\0\0\0",
            b"\0\x03\x14\0\xff\x01\x1f\0",
            system,
            b"\x01\0\x20\0\xa9\0\x12\0",
            denied,
            admins,
            system,
        ];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn parts_may_be_absent_or_empty() {
        assert_eq!(parse("").unwrap().len(), HEADER);
        assert_eq!(parse("D:").unwrap()[HEADER..], *b"\x02\0\x08\0\0\0\0\0");
        let label = parse("S:AR(ML;;NW;;;LW)").unwrap();
        assert_eq!(label[2..4], (SELF_RELATIVE | 0x0210).to_le_bytes());
        assert_eq!(label[28..36], *b"\x11\0\x14\0\x01\0\0\0");
    }

    #[test]
    fn what_is_no_descriptor_is_refused() {
        let long = format!("O:S-1-5{}", "-1".repeat(16));
        for text in [
            "x",
            "O",
            "O:",
            "O:XX",
            "O:BAO:BA",
            "X:BA",
            "::",
            "O:S-1",
            "O:S-1-5-x",
            "D:Q(A;;FA;;;SY)",
            "D:(A;;FA;;;SY",
            "D:(A;;FA;;;SY)x",
            "D:(A;;F;;;SY)",
            "D:(A;;FA;;SY)",
            "D:(Z;;FA;;;SY)",
            "D:(A;XX;FA;;;SY)",
            "D:(OA;;FA;a;;SY)",
            "D:(XA;;FX;;;S-1-1-0;(@User.x==1))",
            "O:S-1-5-4294967296",
            "O:S-1-281474976710656-1",
            "\u{e9}:\u{e9}:",
            &long,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
