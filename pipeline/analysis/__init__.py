"""Analysis: contenders compared, in one study and across studies."""
