//! Prometheus's text exposition format, version 0.0.4.
//!
//! Pure. A family's HELP and TYPE stand before its samples, which stand together; labels' values are escaped.

/// A page of metrics.
#[derive(Debug, Clone, Default)]
pub struct Page(String);

impl Page {
    /// Begins a family of gauges.
    pub fn family(&mut self, name: &str, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        self.0.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n"));
    }

    /// Adds a sample of the family that was begun last.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        self.0.push_str(&format!("{name}{{{}}} {value}\n", labels.join(",")));
    }

    /// Returns the page's text.
    pub fn text(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_and_labels_are_escaped() {
        let mut page = Page::default();
        page.family("a_b", "what\\it\nis");
        page.sample("a_b", &[("x", "q\"b\\s\nn"), ("y", "é")], 0.5);
        page.sample("a_b", &[], 3.0);
        assert_eq!(page.text(), "# HELP a_b what\\\\it\\nis\n# TYPE a_b gauge\na_b{x=\"q\\\"b\\\\s\\nn\",y=\"é\"} 0.5\na_b{} 3\n");
    }
}
