"""What the pages read. Each function answers one page in a bounded number of queries; nothing here writes."""
