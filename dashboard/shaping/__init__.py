"""Pure functions from API records to what the pages draw: no Streamlit, no calls."""
