"""The demo: scikit-learn's digits, and a small vision transformer that was trained on them."""
