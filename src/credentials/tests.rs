mod keeping;
mod providers;
mod standin;
