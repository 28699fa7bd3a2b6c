"""How files of data are packed and written: text with separators, JSON, Parquet."""
