//! Server-sent events, as chat servers send them: <https://html.spec.whatwg.org/multipage/server-sent-events.html>.
//! Only `data` matters here.

/// Longest line, in bytes.
const MAX_LINE: usize = 1 << 20;

/// Cuts a stream of bytes into events, wherever its pieces end.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    line: Vec<u8>,
    /// Of the event that is not complete yet.
    data: Option<String>,
    after_return: bool,
}

impl Decoder {
    /// The events that these bytes complete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<String>, String> {
        let mut events = Vec::new();
        for &byte in bytes {
            // A line ends with a line feed, a carriage return, or both.
            let second = std::mem::replace(&mut self.after_return, byte == b'\r') && byte == b'\n';
            match byte {
                b'\n' if second => {}
                b'\n' | b'\r' => events.extend(self.end_line()?),
                _ if self.line.len() >= MAX_LINE => return Err(format!("a line is longer than {MAX_LINE} bytes")),
                _ => self.line.push(byte),
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Result<Option<String>, String> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return Ok(self.data.take());
        }
        let line = String::from_utf8(line).map_err(|_| "a line is no UTF-8".to_owned())?;
        let line = line.trim_start_matches('\u{feff}');
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        if field != "data" {
            return Ok(None);
        }
        let value = value.strip_prefix(' ').unwrap_or(value);
        match &mut self.data {
            Some(data) if data.len() + value.len() > MAX_LINE => {
                return Err(format!("an event is longer than {MAX_LINE} bytes"));
            }
            Some(data) => {
                data.push('\n');
                data.push_str(value);
            }
            None => self.data = Some(value.to_owned()),
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(pieces: &[&[u8]]) -> Result<Vec<String>, String> {
        let mut decoder = Decoder::default();
        let mut events = Vec::new();
        for piece in pieces {
            events.extend(decoder.feed(piece)?);
        }
        Ok(events)
    }

    #[test]
    fn pieces_may_end_anywhere() {
        let text = "data: é1\r\n\r\n: comment\nevent: x\ndata:2\ndata: 3\n\nid: 4\n\ndata: cut".as_bytes();
        let wanted = Ok(vec!["é1".to_owned(), "2\n3".to_owned()]);
        assert_eq!(events(&[text]), wanted);
        for at in 0..text.len() {
            let (a, b) = text.split_at(at);
            assert_eq!(events(&[a, b]), wanted, "{at}");
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(events(&bytes), wanted);
    }

    #[test]
    fn what_is_too_long_or_no_text_is_refused() {
        assert!(events(&[&vec![b'a'; MAX_LINE + 1]]).is_err());
        assert!(events(&[b"data: \xff\n\n"]).is_err());
        let long = format!("data: {}\n", "a".repeat(MAX_LINE - 100));
        assert!(events(&[long.as_bytes(), long.as_bytes()]).is_err());
    }
}
