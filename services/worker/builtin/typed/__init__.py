"""Types of columns: texts that become values, and what a column has to stay; it reads no source and writes nothing."""
