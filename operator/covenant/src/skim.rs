//! A look over MessagePack before it is decoded. A decoder reserves room for what a length promises, at each level of
//! nesting; here a length that the bytes behind it cannot keep is found first.

use crate::MAX_DEPTH;

/// Checks lengths and depth of one value.
pub(crate) fn skim(payload: &[u8]) -> Result<(), String> {
    let mut bytes = payload;
    // Values that are still to come, at each level.
    let mut open: Vec<u64> = vec![1];
    while let Some(left) = open.last_mut() {
        if *left == 0 {
            open.pop();
            continue;
        }
        *left -= 1;
        let (marker, rest) = bytes.split_first().ok_or("it is cut off")?;
        bytes = rest;
        let values = match marker {
            0x80..=0x8f => 2 * u64::from(marker & 0x0f),
            0x90..=0x9f => u64::from(marker & 0x0f),
            0xdc => number(&mut bytes, 2)?,
            0xdd => number(&mut bytes, 4)?,
            0xde => 2 * number(&mut bytes, 2)?,
            0xdf => 2 * number(&mut bytes, 4)?,
            _ => {
                let length = length(*marker, &mut bytes)?;
                let rest = usize::try_from(length).ok().and_then(|length| bytes.get(length..));
                bytes = rest.ok_or_else(|| format!("a length of {length} with {} bytes behind it", bytes.len()))?;
                continue;
            }
        };
        if values > bytes.len() as u64 {
            return Err(format!("{values} values are promised, in {} bytes", bytes.len()));
        }
        if open.len() > MAX_DEPTH {
            return Err(format!("depth limit exceeded: nested deeper than {MAX_DEPTH}"));
        }
        open.push(values);
    }
    Ok(())
}

/// Bytes that follow the marker of what is neither array nor map.
fn length(marker: u8, bytes: &mut &[u8]) -> Result<u64, String> {
    Ok(match marker {
        0xa0..=0xbf => u64::from(marker & 0x1f),
        0xcc | 0xd0 => 1,
        0xcd | 0xd1 => 2,
        0xca | 0xce | 0xd2 => 4,
        0xcb | 0xcf | 0xd3 => 8,
        0xc4 | 0xd9 => number(bytes, 1)?,
        0xc5 | 0xda => number(bytes, 2)?,
        0xc6 | 0xdb => number(bytes, 4)?,
        // Extensions: a type comes first.
        0xc7 => 1 + number(bytes, 1)?,
        0xc8 => 1 + number(bytes, 2)?,
        0xc9 => 1 + number(bytes, 4)?,
        0xd4..=0xd8 => 1 + (1 << (marker - 0xd4)),
        _ => 0,
    })
}

fn number(bytes: &mut &[u8], size: usize) -> Result<u64, String> {
    let (number, rest) = bytes.split_at_checked(size).ok_or("it is cut off in a length")?;
    *bytes = rest;
    Ok(number.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::skim;

    #[test]
    fn lengths_must_be_kept() {
        for good in [&[0xc0][..], &[0x92, 1, 0xa1, b'x'], &[0x81, 0xa1, b'x', 0xd4, 1, 2], &[0xdc, 0, 1, 0x7f]] {
            assert_eq!(skim(good), Ok(()), "{good:x?}");
        }
        let nested = [vec![0x91; 100], vec![0xc0]].concat();
        for bad in
            [&[0xdd, 0xff, 0xff, 0xff, 0xff][..], &[0x92, 1], &[0xdb, 0, 0, 0, 9, b'x'], &[0xde, 0], &nested, &[]]
        {
            assert!(skim(bad).is_err(), "{bad:x?}");
        }
    }
}
